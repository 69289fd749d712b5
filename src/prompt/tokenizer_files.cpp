#include "prompt/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/error.h"

namespace limner::prompt {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uintmax_t kLargestFile = 256u << 20;
constexpr std::size_t kDefaultLength = 77;
// transformers writes 1e30 for "no limit"; no text encoder has more positions than this.
constexpr double kLongestLength = 65536;

// Tokens with a role, in the order in which transformers adds them; a later one of the same content
// wins.
constexpr const char* kRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

[[noreturn]] void invalid(const fs::path& file, const std::string& what) {
  throw Failure(ErrorCode::kInvalidModel,
                fmt::format("[prompt.tokenizer] {}: {}", file.string(), what));
}

std::optional<std::string> read_file(const fs::path& path) {
  std::error_code status;
  if (!fs::exists(path, status)) return std::nullopt;
  const std::uintmax_t size = fs::file_size(path, status);
  if (status) {
    throw Failure(ErrorCode::kIo, fmt::format("[prompt.tokenizer] cannot read {}: {}",
                                              path.string(), status.message()));
  }
  if (size > kLargestFile) {
    invalid(path, fmt::format("want at most {} bytes, got {}", kLargestFile, size));
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(size, '\0');
  if (!stream || !stream.read(text.data(), static_cast<std::streamsize>(size))) {
    throw Failure(ErrorCode::kIo, fmt::format("[prompt.tokenizer] cannot read {}", path.string()));
  }
  return text;
}

// The JSON object in a file, or nothing when there is no file.
std::optional<Json> read_json(const fs::path& path) {
  const std::optional<std::string> text = read_file(path);
  if (!text) return std::nullopt;
  try {
    Json json = Json::parse(*text);
    if (!json.is_object())
      invalid(path, fmt::format("want a JSON object, got {}", json.type_name()));
    return json;
  } catch (const Json::parse_error& error) {
    invalid(path, fmt::format("is not JSON: {}", error.what()));
  }
}

std::int32_t read_id(const fs::path& path, const std::string& token, const Json& value) {
  constexpr auto kMost = std::numeric_limits<std::int32_t>::max();
  if (!value.is_number_integer() || value < 0 || value > kMost) {
    invalid(path, fmt::format("want a whole number of 0 to {} as the id of '{}', got {}", kMost,
                              token, value.dump()));
  }
  return value.get<std::int32_t>();
}

BytePairs::Vocabulary read_vocabulary(const fs::path& path, const Json& json) {
  if (!json.is_object() || json.empty()) {
    invalid(path, "want a vocabulary of token to id, got none");
  }
  BytePairs::Vocabulary vocabulary;
  vocabulary.reserve(json.size());
  for (const auto& [token, id] : json.items()) vocabulary.emplace(token, read_id(path, token, id));
  return vocabulary;
}

BytePairs::Merge split_merge(const fs::path& path, std::size_t number, std::string_view line) {
  const std::size_t space = line.find(' ');
  const bool pair = space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
                    line.find(' ', space + 1) == std::string_view::npos;
  if (!pair) {
    invalid(path,
            fmt::format("want two symbols and one space between them in merge line {}, got '{}'",
                        number, line.substr(0, 80)));
  }
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

std::vector<BytePairs::Merge> parse_merges(const fs::path& path, const std::string& text) {
  std::vector<BytePairs::Merge> merges;
  std::istringstream lines(text);
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    merges.push_back(split_merge(path, number, line));
  }
  return merges;
}

std::vector<BytePairs::Merge> parse_merges(const fs::path& path, const Json& json) {
  if (!json.is_array()) invalid(path, "want a list as model.merges");
  std::vector<BytePairs::Merge> merges;
  merges.reserve(json.size());
  for (const Json& entry : json) {
    const std::size_t number = merges.size() + 1;
    if (entry.is_string()) {
      merges.push_back(split_merge(path, number, entry.get_ref<const std::string&>()));
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
      merges.emplace_back(entry[0].get<std::string>(), entry[1].get<std::string>());
    } else {
      invalid(path, fmt::format("want 'a b' or ['a', 'b'] as merge {}, got {}", number,
                                entry.dump().substr(0, 80)));
    }
  }
  return merges;
}

// A token as JSON writes it: plain text, or an object with flags. `normalized` defaults to "not
// special".
std::optional<AddedToken> parse_token(const fs::path& path, const std::string& what,
                                      const Json& json, bool special) {
  if (json.is_null()) return std::nullopt;
  if (json.is_string()) return AddedToken{.content = json.get<std::string>()};
  const auto content = json.is_object() ? json.find("content") : json.end();
  if (!json.is_object() || content == json.end() || !content->is_string()) {
    invalid(path, fmt::format("want a text or an object with 'content' as {}, got {}", what,
                              json.dump().substr(0, 80)));
  }
  const auto flag = [&](const char* name, bool otherwise) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) return otherwise;
    if (!found->is_boolean())
      invalid(path, fmt::format("want true or false as '{}' of {}", name, what));
    return found->get<bool>();
  };
  if (flag("single_word", false)) {
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format("[prompt.tokenizer] {}: token '{}' asks for single_word, which is not built",
                    path.string(), content->get<std::string>()));
  }
  return AddedToken{.content = content->get<std::string>(),
                    .normalized = flag("normalized", !flag("special", special)),
                    .strip_left = flag("lstrip", false),
                    .strip_right = flag("rstrip", false)};
}

// Gathers the added tokens from the several files that may name them.
class AddedTokens {
 public:
  explicit AddedTokens(fs::path folder) : folder_(std::move(folder)) {
    for (const char* role : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
      roles_[role] = AddedToken{.content = "<|endoftext|>"};
    }
    roles_["bos_token"].content = "<|startoftext|>";
  }

  void read(const std::optional<Json>& config, const std::optional<Json>& tokenizer) {
    const fs::path config_path = folder_ / "tokenizer_config.json";
    if (config) read_roles(config_path, *config);
    if (config && config->contains("added_tokens_decoder")) {
      read_declared(config_path, (*config)["added_tokens_decoder"]);
      return;
    }
    const fs::path map_path = folder_ / "special_tokens_map.json";
    if (const auto map = read_json(map_path)) read_roles(map_path, *map);
    const fs::path legacy_path = folder_ / "added_tokens.json";
    if (const auto legacy = read_json(legacy_path)) read_legacy(legacy_path, *legacy);
    const fs::path tokenizer_path = folder_ / "tokenizer.json";
    if (tokenizer && tokenizer->contains("added_tokens")) {
      read_listed(tokenizer_path, (*tokenizer)["added_tokens"]);
    }
  }

  void put_into(TokenizerFiles& files) const {
    std::vector<AddedToken> all;
    const auto add = [&](const AddedToken& token) {
      if (token.content.empty()) return;
      const auto same = std::find_if(all.begin(), all.end(),
                                     [&](const auto& t) { return t.content == token.content; });
      same == all.end() ? all.push_back(token) : void(*same = token);
    };
    for (const auto& [id, token] : declared_) add(token);
    std::map<std::string, bool> is_declared;
    for (const auto& token : all) is_declared[token.content] = true;
    const auto add_named = [&](const AddedToken& token) {
      if (!is_declared.contains(token.content)) add(token);
    };
    for (const char* role : kRoles) {
      if (roles_.contains(role)) add_named(roles_.at(role));
    }
    for (const AddedToken& token : extra_) add_named(token);
    assign_ids(files, all);
    files.added = std::move(all);
    files.begin_id = role_id(files, "bos_token");
    files.end_id = role_id(files, "eos_token");
    files.unknown_id = role_id(files, "unk_token");
    files.pad_id = role_id(files, "pad_token");
  }

 private:
  void read_roles(const fs::path& path, const Json& json) {
    for (const char* role : kRoles) {
      const auto found = json.find(role);
      if (found == json.end()) continue;
      if (auto token = parse_token(path, role, *found, true)) roles_[role] = std::move(*token);
    }
    for (const char* name : {"extra_special_tokens", "additional_special_tokens"}) {
      const auto found = json.find(name);
      if (found == json.end() || !found->is_array()) continue;
      for (const Json& entry : *found) {
        if (auto token = parse_token(path, name, entry, true)) extra_.push_back(std::move(*token));
      }
    }
  }

  void read_declared(const fs::path& path, const Json& json) {
    if (!json.is_object()) invalid(path, "want an object as added_tokens_decoder");
    for (const auto& [id, token] : json.items()) {
      const bool digits =
          !id.empty() && id.size() <= 9 &&
          std::all_of(id.begin(), id.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (!digits)
        invalid(path, fmt::format("want an id as a key of added_tokens_decoder, got '{}'", id));
      declare(path, std::stoi(id), parse_token(path, "token " + id, token, false));
    }
  }

  void read_legacy(const fs::path& path, const Json& json) {
    for (const auto& [content, id] : json.items()) {
      const bool special = std::any_of(roles_.begin(), roles_.end(), [&](const auto& role) {
        return role.second.content == content;
      });
      declare(path, read_id(path, content, id),
              AddedToken{.content = content, .normalized = !special});
    }
  }

  void read_listed(const fs::path& path, const Json& json) {
    if (!json.is_array()) invalid(path, "want a list as added_tokens");
    for (const Json& entry : json) {
      if (!entry.is_object() || !entry.contains("id")) {
        invalid(path,
                "want an object with 'id' in added_tokens, got " + entry.dump().substr(0, 80));
      }
      const std::int32_t id = read_id(path, "an added token", entry["id"]);
      declare(path, id, parse_token(path, fmt::format("added token {}", id), entry, false));
    }
  }

  void declare(const fs::path& path, std::int32_t id, std::optional<AddedToken> token) {
    if (!token) invalid(path, fmt::format("want a token of id {}, got null", id));
    token->id = id;
    declared_[id] = std::move(*token);
  }

  // A token of the vocabulary keeps its id; the others are numbered on from its end.
  void assign_ids(TokenizerFiles& files, std::vector<AddedToken>& all) const {
    auto next = static_cast<std::int32_t>(files.vocabulary.size());
    for (AddedToken& token : all) {
      const auto found = files.vocabulary.find(token.content);
      const std::int32_t id = found == files.vocabulary.end() ? next++ : found->second;
      const auto declared =
          std::find_if(declared_.begin(), declared_.end(),
                       [&](const auto& entry) { return entry.second.content == token.content; });
      if (declared != declared_.end() && declared->first != id) {
        invalid(folder_,
                fmt::format("want id {} for the added token '{}' (by the vocabulary), got {}", id,
                            token.content, declared->first));
      }
      token.id = id;
    }
    files.vocabulary_size = static_cast<std::size_t>(next);
  }

  std::int32_t role_id(const TokenizerFiles& files, const std::string& role) const {
    const AddedToken& token = roles_.at(role);
    for (const AddedToken& added : files.added) {
      if (added.content == token.content) return added.id;
    }
    invalid(folder_, fmt::format("want a {} with some text", role));
  }

  fs::path folder_;
  std::map<std::string, AddedToken> roles_;
  std::vector<AddedToken> extra_;
  std::map<std::int32_t, AddedToken> declared_;
};

void read_model(const fs::path& folder, const std::optional<Json>& tokenizer,
                TokenizerFiles& files) {
  if (tokenizer) {
    const fs::path path = folder / "tokenizer.json";
    const auto model = tokenizer->find("model");
    if (model == tokenizer->end() || !model->is_object() || !model->contains("vocab") ||
        !model->contains("merges")) {
      invalid(path, "want 'model' with 'vocab' and 'merges'");
    }
    const auto type = model->find("type");
    if (type != model->end() && type->is_string() && *type != "BPE") {
      throw Failure(ErrorCode::kUnsupported,
                    fmt::format("[prompt.tokenizer] {}: want a model of type BPE, got {}",
                                path.string(), type->get<std::string>()));
    }
    files.vocabulary = read_vocabulary(path, (*model)["vocab"]);
    files.merges = parse_merges(path, (*model)["merges"]);
    return;
  }
  const auto vocabulary = read_json(folder / "vocab.json");
  const auto merges = read_file(folder / "merges.txt");
  if (!vocabulary || !merges) {
    throw Failure(
        ErrorCode::kNotFound,
        fmt::format(
            "[prompt.tokenizer] want vocab.json and merges.txt, or tokenizer.json, in {}: {}",
            folder.string(),
            vocabulary ? "merges.txt is missing"
                       : (merges ? "vocab.json is missing" : "none is there")));
  }
  files.vocabulary = read_vocabulary(folder / "vocab.json", *vocabulary);
  files.merges = parse_merges(folder / "merges.txt", *merges);
}

std::size_t read_max_length(const fs::path& folder, const std::optional<Json>& config) {
  if (!config) return kDefaultLength;
  const auto found = config->find("model_max_length");
  if (found == config->end() || found->is_null()) return kDefaultLength;
  const double length = found->is_number() ? found->get<double>() : 0;
  if (!(length >= 3)) {
    invalid(
        folder / "tokenizer_config.json",
        fmt::format("want a model_max_length of 3 or more, got {}", found->dump().substr(0, 80)));
  }
  return length > kLongestLength ? kDefaultLength : static_cast<std::size_t>(length);
}

}  // namespace

TokenizerFiles read_tokenizer_files(const fs::path& folder) {
  std::error_code status;
  if (!fs::is_directory(folder, status)) {
    throw Failure(
        ErrorCode::kNotFound,
        fmt::format("[prompt.tokenizer] want a tokenizer folder, got {}", folder.string()));
  }
  TokenizerFiles files;
  const auto tokenizer = read_json(folder / "tokenizer.json");
  const auto config = read_json(folder / "tokenizer_config.json");
  read_model(folder, tokenizer, files);
  files.max_length = read_max_length(folder, config);
  AddedTokens added(folder);
  added.read(config, tokenizer);
  added.put_into(files);
  return files;
}

}  // namespace limner::prompt
