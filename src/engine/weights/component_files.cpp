#include "engine/weights/component_files.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <set>
#include <system_error>

#include "base/error.h"
#include "engine/weights/file_kind.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

constexpr std::array<std::string_view, 2> kBases = {"diffusion_pytorch_model", "model"};
constexpr std::size_t kMostShards = 500;  // each keeps a file descriptor
constexpr std::size_t kMostEntries = 10'000;

std::set<std::string, std::less<>> names_in(const std::filesystem::path& folder) {
  std::set<std::string, std::less<>> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error), end;
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    throw Failure(ErrorCode::kNotFound, quote(folder.string()) + ": no such folder");
  }
  for (; !error && entry != end; entry.increment(error)) {
    names.insert(entry->path().filename().string());
    if (names.size() > kMostEntries) {
      throw Failure(ErrorCode::kInvalidModel,
                    quote(folder.string()) + ": too many files for a model's component");
    }
  }
  if (error)
    throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be listed ({})", quote(folder.string()),
                                              error.message()));
  return names;
}

bool all_digits(std::string_view text) {
  return text.find_first_not_of("0123456789") == std::string_view::npos;
}

// Takes "-00001-of-00002" off the end, when it is there.
std::string_view without_shard_number(std::string_view text) {
  constexpr std::size_t kLength = 15;
  if (text.size() < kLength) return text;
  const std::string_view tail = text.substr(text.size() - kLength);
  const bool fits = tail[0] == '-' && all_digits(tail.substr(1, 5)) &&
                    tail.substr(6, 4) == "-of-" && all_digits(tail.substr(10));
  return fits ? text.substr(0, text.size() - kLength) : text;
}

// The variant that a file name carries, "" for a plain one, nothing for a file that holds no
// weights of ours.
std::optional<std::string> variant_of(std::string_view file) {
  for (const std::string_view base : kBases) {
    if (!file.starts_with(base)) continue;
    std::string_view rest = file.substr(base.size());
    constexpr std::string_view kIndex = ".safetensors.index", kJson = ".json",
                               kWeights = ".safetensors";
    if (rest.ends_with(kJson)) {
      rest.remove_suffix(kJson.size());
      // ".safetensors.index.fp16" or ".fp16.safetensors.index"
      if (rest.starts_with(kIndex)) {
        rest.remove_prefix(kIndex.size());
      } else if (rest.ends_with(kIndex)) {
        rest.remove_suffix(kIndex.size());
      } else {
        return std::nullopt;
      }
    } else if (rest.ends_with(kWeights)) {
      rest.remove_suffix(kWeights.size());
      // "-00001-of-00002.fp16" of old versions, ".fp16-00001-of-00002" of new ones
      const std::size_t dot = rest.find('.');
      if (dot != std::string_view::npos && without_shard_number(rest.substr(0, dot)).empty())
        rest.remove_prefix(dot);
      rest = without_shard_number(rest);
    } else {
      return std::nullopt;
    }
    if (rest.empty()) return std::string();
    if (rest[0] == '.' && rest.find('.', 1) == std::string_view::npos && rest.size() > 1) {
      return std::string(rest.substr(1));
    }
  }
  return std::nullopt;
}

std::set<std::string> variants_among(const std::set<std::string, std::less<>>& names) {
  std::set<std::string> variants;
  for (const std::string& name : names) {
    if (auto variant = variant_of(name)) variants.insert(std::move(*variant));
  }
  return variants;
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

ComponentFiles read_index(const std::filesystem::path& file) {
  const std::string where = short_name(file);
  const nlohmann::json index = read_json(file, where);
  ComponentFiles found;
  found.index_file = file;
  const auto fail = [&](const std::string& what) {
    throw Failure(ErrorCode::kInvalidModel, where + ": " + what);
  };
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    fail("wants an object 'weight_map' from tensor names to file names");
  }
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string())
      fail(fmt::format("tensor {} is mapped to something that is no file name", quote(tensor)));
    const auto& name = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(name)) {
      fail(fmt::format("the shard {} is not a plain file name in the same folder", quote(name)));
    }
    if (has_pickle_extension(name))
      throw Failure(pickle_refusal(short_name(file.parent_path() / name)));
    found.index.emplace(tensor, name);
    shards.insert(name);
    if (shards.size() > kMostShards) fail(fmt::format("more than {} shards", kMostShards));
  }
  if (shards.empty()) fail("its weight_map is empty");
  for (const std::string& shard : shards) {
    std::error_code error;
    if (!std::filesystem::exists(file.parent_path() / shard, error)) {
      fail(fmt::format("names the shard {}, which is not there", quote(shard)));
    }
    found.files.push_back(file.parent_path() / shard);
  }
  const auto metadata = index.find("metadata");
  if (metadata != index.end() && metadata->is_object() && metadata->contains("total_size") &&
      (*metadata)["total_size"].is_number_unsigned()) {
    found.index_total_size = (*metadata)["total_size"].get<std::uint64_t>();
  }
  return found;
}

std::optional<ComponentFiles> find_exact(const std::filesystem::path& folder,
                                         const std::set<std::string, std::less<>>& names,
                                         std::string_view variant) {
  const std::string dotted = variant.empty() ? std::string() : fmt::format(".{}", variant);
  for (const std::string_view base : kBases) {
    const std::string single = fmt::format("{}{}.safetensors", base, dotted);
    const bool has_single = names.contains(single);
    for (const std::string& index : {fmt::format("{}.safetensors.index{}.json", base, dotted),
                                     fmt::format("{}{}.safetensors.index.json", base, dotted)}) {
      // Where both lie side by side, transformers reads the single file and diffusers the index.
      if (names.contains(index) && !(has_single && base == "model"))
        return read_index(folder / index);
    }
    if (has_single) {
      ComponentFiles found;
      found.files.push_back(folder / single);
      return found;
    }
  }
  return std::nullopt;
}

[[noreturn]] void nothing_found(const std::filesystem::path& folder,
                                const std::set<std::string, std::less<>>& names,
                                std::string_view variant) {
  const std::string where = quote(folder.filename().string());
  const std::set<std::string> variants = variants_among(names);
  if (variants.contains(std::string(variant))) {
    throw Failure(ErrorCode::kNotFound,
                  where +
                      ": has shards of weights, but not the *.safetensors.index.json that "
                      "lists them");
  }
  if (!variants.empty()) {
    throw Failure(ErrorCode::kNotFound,
                  fmt::format("{}: {}; it has {}", where,
                              variant.empty()
                                  ? "say which variant to load"
                                  : fmt::format("has no weights of the variant {}", quote(variant)),
                              fmt::join(variants, ", ")));
  }
  for (const std::string& name : names) {
    if (has_pickle_extension(name) ||
        has_pickle_extension(std::filesystem::path(name).stem().stem())) {
      throw Failure(pickle_refusal(short_name(folder / name)));
    }
  }
  throw Failure(
      ErrorCode::kNotFound,
      where + ": has no weights, want diffusion_pytorch_model.safetensors or model.safetensors");
}

}  // namespace

ComponentFiles find_component_files(const std::filesystem::path& folder, std::string_view variant) {
  if (variant.find_first_of(std::string_view("/\\.\0", 4)) != std::string_view::npos ||
      variant.size() > 64) {
    throw Failure(ErrorCode::kInvalidArgument, quote(variant) + " cannot be the name of a variant");
  }
  const auto names = names_in(folder);
  if (auto found = find_exact(folder, names, variant)) return std::move(*found);
  if (!variant.empty()) {
    if (auto found = find_exact(folder, names, "")) return std::move(*found);
    nothing_found(folder, names, variant);
  }
  const std::set<std::string> variants = variants_among(names);
  if (variants.size() == 1) {
    if (auto found = find_exact(folder, names, *variants.begin())) return std::move(*found);
    nothing_found(folder, names, *variants.begin());
  }
  nothing_found(folder, names, variant);
}

std::vector<std::string> find_variants(const std::filesystem::path& folder) {
  const std::set<std::string> variants = variants_among(names_in(folder));
  return {variants.begin(), variants.end()};
}

}  // namespace limner::engine::weights
