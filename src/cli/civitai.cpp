#include "cli/civitai.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::http::Url;

bool all_digits(std::string_view text) {
  return !text.empty() && text.size() <= 18 &&
         text.find_first_not_of("0123456789") == std::string_view::npos;
}

// "a=1&b=2"; values are taken as they stand, since ours hold no %XX.
std::map<std::string, std::string> query_of(const Url& url) {
  std::map<std::string, std::string> query;
  const auto mark = url.target.find('?');
  if (mark == std::string::npos) return query;
  std::string_view rest = std::string_view(url.target).substr(mark + 1);
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    query[std::string(pair.substr(0, equals))] = pair.substr(equals + 1);
  }
  return query;
}

bool same_word(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

std::string text_at(const json& object, const char* key) {
  const auto value = object.find(key);
  return value != object.end() && value->is_string() ? value->get<std::string>() : "";
}

json object_at(const json& object, const char* key) {
  const auto value = object.find(key);
  return value != object.end() && value->is_object() ? *value : json::object();
}

// "Pruned Model" may be written with %20 or '+' in a link.
bool fits(const json& file, const std::map<std::string, std::string>& query) {
  const json metadata = object_at(file, "metadata");
  const auto asked = [&](const char* key, const std::string& has) {
    const auto wanted = query.find(key);
    if (wanted == query.end()) return true;
    const std::string& link = wanted->second;
    std::string text;
    for (std::size_t at = 0; at < link.size(); ++at) {
      const bool space = link[at] == '+' || link.compare(at, 3, "%20") == 0;
      text += space ? ' ' : link[at];
      if (space && link[at] == '%') at += 2;
    }
    return same_word(text, has);
  };
  return asked("type", text_at(file, "type")) && asked("format", text_at(metadata, "format")) &&
         asked("size", text_at(metadata, "size")) && asked("fp", text_at(metadata, "fp"));
}

bool is_safetensors(const json& file) {
  return same_word(text_at(object_at(file, "metadata"), "format"), "SafeTensor") ||
         text_at(file, "name").ends_with(".safetensors");
}

}  // namespace

std::optional<std::string> civitai_version(const Url& url, const Url& civitai) {
  if (url.authority() != civitai.authority() && url.authority() != "www." + civitai.authority()) {
    return std::nullopt;
  }
  const std::string_view target = url.target;
  std::string_view path = target.substr(0, target.find('?'));
  constexpr std::string_view kDownload = "/api/download/models/";
  if (path.starts_with(kDownload) && all_digits(path.substr(kDownload.size()))) {
    return std::string(path.substr(kDownload.size()));
  }
  const auto query = query_of(url);
  const auto version = query.find("modelVersionId");
  if (path.starts_with("/models/") && version != query.end() && all_digits(version->second)) {
    return version->second;
  }
  return std::nullopt;
}

Result<RemoteFile> choose_civitai_file(const std::string& description, const Url& link) {
  const json body = json::parse(description, nullptr, false);
  if (!body.is_object() || !body.contains("files") || !body["files"].is_array()) {
    return Error{ErrorCode::kInvalidModel,
                 "Civitai's answer is not the description of a model version"};
  }
  const auto query = query_of(link);
  const json* best = nullptr;
  std::string there;
  for (const json& file : body["files"]) {
    if (!file.is_object()) continue;
    there += (there.empty() ? "" : ", ") + safe_file_name(text_at(file, "name"));
    if (!is_safetensors(file) || !fits(file, query) || text_at(file, "downloadUrl").empty())
      continue;
    const bool primary = file.contains("primary") && file["primary"] == true;
    if (best == nullptr || primary) best = &file;
  }
  if (best == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("none of this version's files is the safetensors file asked for ({})",
                             there.empty() ? "it has none" : there)};
  }
  return RemoteFile{text_at(*best, "downloadUrl"), safe_file_name(text_at(*best, "name")),
                    text_at(object_at(*best, "hashes"), "SHA256")};
}

Result<RemoteFile> find_civitai_file(const Url& link, const std::string& version,
                                     const Url& civitai,
                                     const platform::http::NetworkRules& rules) {
  Url api = civitai;
  api.target = "/api/v1/model-versions/" + version;
  platform::http::FetchRequest request;
  request.url = api.text();
  request.network = rules;
  const auto description = platform::http::fetch(request);
  if (!description.ok()) return description.error();
  return choose_civitai_file(*description, link);
}

std::string safe_file_name(const std::string& name) {
  std::string safe = name;
  for (char& c : safe) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    if (!plain) c = '_';
  }
  safe.erase(0, safe.find_first_not_of('.'));
  constexpr std::string_view kEnding = ".safetensors";
  if (safe.ends_with(kEnding)) safe.resize(safe.size() - kEnding.size());
  if (safe.empty()) safe = "model";
  return safe.substr(0, 200) + std::string(kEnding);
}

}  // namespace limner::cli
