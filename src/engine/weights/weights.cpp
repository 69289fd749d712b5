#include "engine/weights/weights.h"

#include <fmt/format.h>

#include <fstream>
#include <map>
#include <mutex>

#include "base/file_hash.h"
#include "engine/weights/component_files.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
struct Weights::State {
  std::vector<SafetensorsFile> files;
  std::map<std::string, const TensorView*, std::less<>> tensors;
  std::shared_ptr<const Weights> renamed_from;               // owns the files then
  std::map<std::string, TensorView, std::less<>> own_views;  // `tensors` points into them
  std::vector<std::vector<std::byte>> made;                  // bytes that lie in no file

  mutable std::once_flag hashed;
  mutable std::string sha256;

  const SafetensorsFile* owner(const TensorView& tensor) const {
    for (const SafetensorsFile& file : files) {
      if (file.owns(tensor)) return &file;
    }
    return nullptr;
  }

  void add_file(const std::filesystem::path& path) {
    files.push_back(SafetensorsFile::open(path).value_or_throw());
    const std::string where = short_name(path);
    // The views stay where they are when `files` grows: a SafetensorsFile holds them behind a
    // pointer.
    for (const auto& [name, view] : files.back().tensors()) {
      if (!tensors.emplace(name, &view).second) {
        throw Failure(ErrorCode::kInvalidModel,
                      fmt::format("{}: tensor {} is also in another shard", where, quote(name)));
      }
    }
  }

  void check_index(const ComponentFiles& component) const {
    const std::string where = short_name(component.index_file);
    std::map<std::string, const SafetensorsFile*> by_name;
    for (const SafetensorsFile& file : files) by_name[file.path().filename().string()] = &file;
    for (const auto& [tensor, shard] : component.index) {
      if (by_name.at(shard)->tensors().contains(tensor)) continue;
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: says that tensor {} is in {}, but it is not", where,
                                quote(tensor), quote(shard)));
    }
  }
};

Weights::Weights(std::unique_ptr<State> state) : state_(std::move(state)) {}
Weights::~Weights() = default;

Result<std::shared_ptr<const Weights>> Weights::open_component(const std::filesystem::path& folder,
                                                               std::string_view variant) {
  try {
    const ComponentFiles component = find_component_files(folder, variant);
    auto state = std::make_unique<State>();
    for (const auto& file : component.files) state->add_file(file);
    state->check_index(component);
    return std::shared_ptr<const Weights>(std::make_shared<Weights>(std::move(state)));
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::shared_ptr<const Weights>> Weights::open_file(const std::filesystem::path& file) {
  try {
    auto state = std::make_unique<State>();
    state->add_file(file);
    return std::shared_ptr<const Weights>(std::make_shared<Weights>(std::move(state)));
  } catch (const Failure& failure) {
    return failure.error();
  }
}

std::vector<std::string> Weights::variants(const std::filesystem::path& folder) {
  try {
    return find_variants(folder);
  } catch (const Failure&) {
    return {};
  }
}

const TensorView* Weights::find(std::string_view name) const {
  const auto found = state_->tensors.find(name);
  return found == state_->tensors.end() ? nullptr : found->second;
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  names.reserve(state_->tensors.size());
  for (const auto& [name, view] : state_->tensors) names.push_back(name);
  return names;
}

std::uint64_t Weights::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [name, view] : state_->tensors) sum += view->bytes.size();
  return sum;
}

std::vector<std::filesystem::path> Weights::files() const {
  if (state_->renamed_from) return state_->renamed_from->files();
  std::vector<std::filesystem::path> paths;
  for (const SafetensorsFile& file : state_->files) paths.push_back(file.path());
  return paths;
}

Result<void> Weights::prefetch(const TensorView& tensor) const {
  if (state_->renamed_from) return state_->renamed_from->prefetch(tensor);
  const SafetensorsFile* file = state_->owner(tensor);
  return file ? file->prefetch(tensor) : Result<void>();
}

void Weights::release(const TensorView& tensor) const {
  if (state_->renamed_from) return state_->renamed_from->release(tensor);
  if (const SafetensorsFile* file = state_->owner(tensor)) file->release(tensor);
}

const std::string& Weights::sha256() const {
  if (state_->renamed_from) return state_->renamed_from->sha256();
  std::call_once(state_->hashed, [&] {
    Sha256 hash;
    for (const SafetensorsFile& file : state_->files) {
      if (!hash_file(file.path(), hash).ok()) return;
    }
    state_->sha256 = to_hex(hash.finish());
  });
  return state_->sha256;
}

std::shared_ptr<const Weights> Weights::renamed(std::shared_ptr<const Weights> weights,
                                                std::string (*rename)(std::string_view)) {
  auto state = std::make_unique<State>();
  for (const auto& [name, view] : weights->state_->tensors) {
    std::string new_name = rename(name);
    if (!state->tensors.emplace(new_name, view).second) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("tensor {} occurs under two names, one of them {}", quote(new_name),
                                quote(name)));
    }
  }
  state->renamed_from = std::move(weights);
  return std::make_shared<Weights>(std::move(state));
}

std::shared_ptr<const Weights> Weights::of_views(
    std::shared_ptr<const Weights> source, std::map<std::string, TensorView, std::less<>> views,
    std::vector<std::vector<std::byte>> made) {
  auto state = std::make_unique<State>();
  state->own_views = std::move(views);
  state->made = std::move(made);
  for (const auto& [name, view] : state->own_views) {
    state->tensors.emplace_hint(state->tensors.end(), name, &view);
  }
  state->renamed_from = std::move(source);
  return std::make_shared<Weights>(std::move(state));
}

std::optional<std::string> Weights::metadata(std::string_view key) const {
  if (state_->renamed_from) return state_->renamed_from->metadata(key);
  for (const SafetensorsFile& file : state_->files) {
    if (const auto found = file.metadata().find(key); found != file.metadata().end())
      return found->second;
  }
  return std::nullopt;
}

}  // namespace limner::engine::weights
