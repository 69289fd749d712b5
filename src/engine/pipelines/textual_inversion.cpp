#include "engine/pipelines/textual_inversion.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "engine/weights/weights.h"

namespace limner::engine::pipelines {
namespace {

namespace fs = std::filesystem;
using weights::Weights;

bool is_embedding_file(const fs::path& file) {
  const std::string ending = file.extension().string();
  return ending == ".safetensors" || ending == ".pt" || ending == ".bin";
}

// The names by which encoders of an SDXL file go, in order.
constexpr const char* kFirstEncoder[] = {"clip_l", "text_encoders_0"};
constexpr const char* kSecondEncoder[] = {"clip_g", "text_encoders_1"};

const char* present(const Weights& tensors, const auto& spellings) {
  for (const char* name : spellings) {
    if (tensors.find(name) != nullptr) return name;
  }
  return nullptr;
}

bool is_fixed_name(const std::string& name) {
  const auto one_of = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return name == "emb_params" || name.starts_with("string_to_param") || one_of(kFirstEncoder) ||
         one_of(kSecondEncoder);
}

// The token that a diffusers file names its one tensor by, or "".
std::string token_of(const fs::path& file) {
  if (file.extension() != ".safetensors") return "";
  const auto tensors = Weights::open_file(file);
  if (!tensors.ok()) return "";  // said when a prompt mentions the file
  const std::vector<std::string> names = (*tensors)->names();
  return names.size() == 1 && !is_fixed_name(names.front()) ? names.front() : "";
}

}  // namespace

TextualInversions::TextualInversions(const std::vector<fs::path>& folders,
                                     std::vector<Encoder> encoders, const nn::Placement& placement)
    : encoders_(std::move(encoders)), placement_(placement) {
  for (const fs::path& folder : folders) find_files(folder);
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) {
    names.push_back(name);
    file_of_.push_back(file);
  }
  for (std::size_t encoder = 0; encoder < encoders_.size(); ++encoder) {
    names_.emplace_back(names, [this, encoder](std::size_t embedding) {
      return static_cast<std::size_t>(vectors(embedding, encoder).size(0));
    });
  }
}

void TextualInversions::find_files(const fs::path& folder) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) {
    if (is_embedding_file(entry.path()) && entry.is_regular_file(ignored)) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) {
    const bool a_safe = a.extension() == ".safetensors", b_safe = b.extension() == ".safetensors";
    return a_safe != b_safe ? a_safe : a < b;
  });
  for (const fs::path& file : found) {
    files_.try_emplace(file.stem().string(), file);
    if (const std::string token = token_of(file); !token.empty()) files_.try_emplace(token, file);
  }
}

const at::Tensor& TextualInversions::vectors(std::size_t embedding, std::size_t encoder) const {
  const std::lock_guard lock(mutex_);
  const auto found = loaded_.find(embedding);
  if (found != loaded_.end()) return found->second[encoder];
  return loaded_.emplace(embedding, read(file_of_[embedding])).first->second[encoder];
}

std::vector<at::Tensor> TextualInversions::read(const fs::path& file) const {
  const auto tensors = Weights::open_file(file).value_or_throw();
  const auto wrong = [&](const std::string& what) {
    return Failure(ErrorCode::kInvalidArgument,
                   fmt::format("the embedding {}: {}", file.string(), what));
  };
  const char* const first = present(*tensors, kFirstEncoder);
  const char* const second = present(*tensors, kSecondEncoder);
  std::vector<std::string> names;
  if (first != nullptr || second != nullptr) {
    if (first == nullptr || second == nullptr || encoders_.size() != 2) {
      throw wrong(fmt::format(
          "it is for a model with {} (SDXL), and this one has {} text encoder{}",
          first == nullptr || second == nullptr ? "clip_l and clip_g" : "two text encoders",
          encoders_.size(), encoders_.size() == 1 ? "" : "s"));
    }
    names = {first, second};
  } else {
    names = tensors->names();
    std::erase_if(names, [&](const std::string& name) {
      return tensors->names().size() > 1 && !is_fixed_name(name);
    });
    if (names.size() != 1) {
      throw wrong(
          fmt::format("want one tensor, or clip_l and clip_g, got {}", tensors->names().size()));
    }
    if (encoders_.size() != 1) {
      const auto& shape = tensors->find(names.front())->shape;
      throw wrong(
          fmt::format("it holds one set of vectors, {} wide, and this model has {} text "
                      "encoders, {} and {} wide",
                      shape.empty() ? 0 : shape.back(), encoders_.size(), encoders_[0].width,
                      encoders_[1].width));
    }
  }
  const nn::TensorSource source(tensors, placement_);
  std::vector<at::Tensor> vectors;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::vector<std::int64_t> shape = tensors->find(names[i])->shape;
    const std::int64_t width = shape.empty() ? 0 : shape.back();
    if (shape.empty() || shape.size() > 2 || width != encoders_[i].width) {
      throw wrong(fmt::format("its vectors '{}' are {} wide, and {} of this model takes {}",
                              names[i], width, encoders_[i].name, encoders_[i].width));
    }
    const std::int64_t count = shape.size() == 2 ? shape.front() : 1;
    if (count < 1 || static_cast<std::size_t>(count) > encoders_[i].most_vectors) {
      throw wrong(fmt::format("it has {} vectors; want 1 to {}", count, encoders_[i].most_vectors));
    }
    vectors.push_back(source.take_small(names[i], shape).view({count, width}).clone());
  }
  return vectors;
}

}  // namespace limner::engine::pipelines
