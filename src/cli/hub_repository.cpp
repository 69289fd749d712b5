#include "cli/hub_repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::http::Url;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

bool is_word(std::string_view text) {
  return !text.empty() && text.front() != '.' && text.size() <= 100 &&
         std::all_of(text.begin(), text.end(), is_plain);
}

// %XX for everything but plain characters and, in a path, '/'.
std::string encode(std::string_view text, bool keep_slash) {
  std::string encoded;
  for (const char c : text) {
    if (is_plain(c) || (keep_slash && c == '/')) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '/') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// Whether a path of a stranger stays inside the folder it is put in.
bool stays_inside(const std::string& path) {
  if (path.size() > 1000) return false;
  for (const char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == 0x7f) return false;
  }
  const auto parts = split(path);
  return std::none_of(parts.begin(), parts.end(), [](const std::string& part) {
    return part.empty() || part == "." || part == "..";
  });
}

enum class Kind { kOther, kText, kWeights, kPickle };

struct Told {
  Kind kind = Kind::kOther;
  std::string variant{};
};

// By the name alone: NAME[.VARIANT][-NNNNN-of-NNNNN].safetensors, and the index of such shards,
// NAME.safetensors.index[.VARIANT].json.
Told tell(const std::string& name) {
  static const std::regex weights(R"(([^.]+)(?:\.([^.]+?))?(?:-\d{5}-of-\d{5})?\.safetensors)");
  static const std::regex index(R"(([^.]+)\.safetensors\.index(?:\.([^.]+))?\.json)");
  std::smatch parts;
  if (std::regex_match(name, parts, weights) || std::regex_match(name, parts, index)) {
    return {Kind::kWeights, parts[2].str()};
  }
  const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
  if (ends(".bin") || ends(".ckpt") || ends(".pt") || ends(".pth")) return {Kind::kPickle};
  const bool foreign_index = name.find(".bin.index.") != std::string::npos;
  if (!foreign_index && (ends(".json") || ends(".txt") || ends(".model"))) return {Kind::kText};
  return {};
}

struct Component {
  std::vector<HubFile> texts;
  std::map<std::string, std::vector<HubFile>> weights;  // by variant
  bool pickles = false;
};

std::set<std::string> component_names(const std::string& model_index) {
  const json index = json::parse(model_index, nullptr, false);
  if (!index.is_object()) throw Failure(ErrorCode::kInvalidModel, "model_index.json is not JSON");
  std::set<std::string> names;
  for (const auto& [key, value] : index.items()) {
    const bool pair = value.is_array() && value.size() == 2 && value[1].is_string();
    if (!key.starts_with('_') && pair) names.insert(key);
  }
  if (names.empty()) {
    throw Failure(ErrorCode::kInvalidModel, "model_index.json names no component");
  }
  return names;
}

std::map<std::string, Component> sort_out(const HubRepository& repository,
                                          const std::set<std::string>& names,
                                          std::vector<HubFile>& chosen) {
  std::map<std::string, Component> components;
  for (const HubFile& file : repository.files) {
    const auto parts = split(file.path);
    if (parts.size() == 1 && (parts[0] == "model_index.json" || parts[0].starts_with("LICENSE") ||
                              parts[0] == "README.md")) {
      chosen.push_back(file);
    }
    if (parts.size() != 2 || !names.contains(parts[0])) continue;
    Component& component = components[parts[0]];
    const Told told = tell(parts[1]);
    if (told.kind == Kind::kText) component.texts.push_back(file);
    if (told.kind == Kind::kWeights) component.weights[told.variant].push_back(file);
    if (told.kind == Kind::kPickle) component.pickles = true;
  }
  return components;
}

std::string variants_of(const std::map<std::string, Component>& components) {
  std::set<std::string> variants;
  for (const auto& [name, component] : components) {
    for (const auto& [variant, files] : component.weights) {
      if (!variant.empty()) variants.insert(variant);
    }
  }
  return variants.empty() ? "none" : fmt::format("{}", fmt::join(variants, ", "));
}

std::vector<HubFile> choose(const HubRepository& repository, const std::string& model_index,
                            const std::string& variant) {
  std::vector<HubFile> chosen;
  const auto components = sort_out(repository, component_names(model_index), chosen);
  const auto append = [&](const std::vector<HubFile>& files) {
    chosen.insert(chosen.end(), files.begin(), files.end());
  };
  bool variant_found = variant.empty();
  for (const auto& [name, component] : components) {
    append(component.texts);
    if (component.weights.empty() && component.pickles) {
      throw Failure(
          ErrorCode::kUnsupported,
          fmt::format("{} has its weights only as Python pickles, which limner never opens", name));
    }
    if (component.weights.empty()) continue;
    auto weights = component.weights.find(variant);
    variant_found = variant_found || weights != component.weights.end();
    if (weights == component.weights.end()) weights = component.weights.find("");
    if (weights == component.weights.end()) {
      throw Failure(ErrorCode::kNotFound,
                    fmt::format("{} has no weights without a variant; there are: {}", name,
                                variants_of(components)));
    }
    append(weights->second);
  }
  if (!variant_found) {
    throw Failure(ErrorCode::kNotFound,
                  fmt::format("no component has the variant {}; there are: {}", variant,
                              variants_of(components)));
  }
  return chosen;
}

HubRepository read_repository(const std::string& answer) {
  const json body = json::parse(answer, nullptr, false);
  const auto broken = [] {
    return Failure(ErrorCode::kInvalidModel, "the hub's answer is not the list of a repository");
  };
  if (!body.is_object()) throw broken();
  HubRepository repository;
  try {
    repository.commit = body.at("sha");
    for (const json& entry : body.at("siblings")) {
      HubFile file{entry.at("rfilename"), entry.value("size", std::uint64_t{0}), ""};
      if (entry.contains("lfs") && entry["lfs"].is_object()) {
        file.sha256 = entry["lfs"].value("sha256", "");
      }
      if (!stays_inside(file.path)) {
        throw Failure(ErrorCode::kInvalidModel,
                      "the repository has a file whose path leads out of its folder");
      }
      repository.files.push_back(std::move(file));
    }
  } catch (const json::exception&) {
    throw broken();
  }
  if (!is_word(repository.commit)) throw broken();
  return repository;
}

}  // namespace

Result<HubName> parse_hub_name(const std::string& text) {
  HubName name;
  const auto at = text.find('@');
  name.repository = text.substr(0, at);
  if (at != std::string::npos) name.revision = text.substr(at + 1);
  const auto parts = split(name.repository);
  const auto revision = split(name.revision);
  if (parts.size() == 2 && is_word(parts[0]) && is_word(parts[1]) &&
      std::all_of(revision.begin(), revision.end(), is_word)) {
    return name;
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("'{}' is neither a URL nor a repository: want https://... or "
                           "owner/name[@revision]",
                           text.substr(0, 200))};
}

Result<HubRepository> parse_hub_repository(const std::string& answer) {
  try {
    return read_repository(answer);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::vector<HubFile>> choose_hub_files(const HubRepository& repository,
                                              const std::string& model_index,
                                              const std::string& variant) {
  try {
    return choose(repository, model_index, variant);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

std::string hub_file_url(const Url& endpoint, const HubName& name, const std::string& commit,
                         const std::string& path) {
  Url url = endpoint;
  url.target = fmt::format("/{}/resolve/{}/{}", name.repository, commit, encode(path, true));
  return url.text();
}

std::string hub_api_url(const Url& endpoint, const HubName& name) {
  Url url = endpoint;
  url.target = fmt::format("/api/models/{}/revision/{}?blobs=true", name.repository,
                           encode(name.revision, false));
  return url.text();
}

}  // namespace limner::cli
