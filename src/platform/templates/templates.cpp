#include "platform/templates/templates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "base/json.h"
#include "base/suggest.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr JsonLimits kLimits{.bytes = 4u << 20, .depth = 32, .values = 100'000};
constexpr std::size_t kMostShown = 10;
constexpr std::size_t kMostTemplates = 1000;
constexpr std::size_t kMostLoras = 64;

struct Mistake {
  std::size_t line;
  std::string text;
};

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= 128 && text[0] != '.' && text[0] != '-' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// The last part of a URL's path, when that can name a file.
std::string filename_of(const std::string& url) {
  const std::string path = url.substr(0, url.find_first_of("?#"));
  const std::string last = path.substr(path.rfind('/') + 1);
  return is_name(last) && last.ends_with(".safetensors") ? last : "";
}

// Reads the located JSON and remembers every mistake.
class Reader {
 public:
  Reader(const json& root, const JsonLines& lines, std::vector<Mistake>& mistakes)
      : root_(root), lines_(lines), mistakes_(mistakes) {}

  void read(Templates& out) {
    if (!object(root_, "", {"$schema", "templates", "default_template"})) return;
    if (!root_.contains("templates")) return mistake("", "wants an object \"templates\"");
    const json& list = root_["templates"];
    if (!list.is_object()) return mistake("/templates", "\"templates\" wants an object");
    if (list.size() > kMostTemplates)
      return mistake("/templates", fmt::format("more than {} templates", kMostTemplates));
    for (const auto& [key, value] : list.items()) {
      const std::string at = "/templates/" + pointer_part(key);
      if (!is_name(key)) mistake(at, "a template's key wants letters, digits and ._- only");
      out.by_key[key] = read_template(key, value, at);
    }
    out.default_template = text(root_, "", "default_template", false);
    if (!out.default_template.empty() && !out.by_key.contains(out.default_template)) {
      mistake("/default_template",
              fmt::format("there is no template \"{}\"{}", shown(out.default_template),
                          did_you_mean(out.default_template, keys(out))));
    }
    check_files(out);
  }

 private:
  Template read_template(const std::string& key, const json& value, const std::string& at) {
    Template made;
    made.key = key;
    if (!object(value, at, {"name", "description", "checkpoint", "loras", "defaults"})) return made;
    made.name = text(value, at, "name", false);
    made.description = text(value, at, "description", false);
    if (value.contains("checkpoint")) {
      made.checkpoint = read_checkpoint(value["checkpoint"], at + "/checkpoint");
    } else {
      mistake(at, "wants a \"checkpoint\"");
    }
    if (value.contains("loras")) read_loras(value["loras"], at + "/loras", made);
    if (value.contains("defaults"))
      made.defaults = read_defaults(value["defaults"], at + "/defaults");
    if (made.checkpoint.diffusers_dir == key + "-merged-df")
      mistake(at + "/checkpoint/diffusers_dir", "is the name that the merged model will have");
    return made;
  }

  TemplateCheckpoint read_checkpoint(const json& value, const std::string& at) {
    TemplateCheckpoint made;
    if (!object(value, at, {"name", "url", "filename", "diffusers_dir", "sha256", "prediction"}))
      return made;
    made.name = text(value, at, "name", false);
    made.url = url(value, at);
    made.filename = file_name(value, at, made.url);
    made.diffusers_dir = text(value, at, "diffusers_dir", true);
    if (!made.diffusers_dir.empty() && !is_name(made.diffusers_dir))
      mistake(at + "/diffusers_dir", "wants a plain folder name of letters, digits and ._-");
    made.sha256 = sha256(value, at);
    made.prediction = text(value, at, "prediction", false);
    if (!made.prediction.empty() && made.prediction != "epsilon" &&
        made.prediction != "v_prediction")
      mistake(at + "/prediction", "wants \"epsilon\" or \"v_prediction\"");
    return made;
  }

  void read_loras(const json& value, const std::string& at, Template& made) {
    if (!value.is_array()) return mistake(at, "\"loras\" wants an array");
    if (value.size() > kMostLoras)
      return mistake(at, fmt::format("more than {} adapters", kMostLoras));
    for (std::size_t i = 0; i < value.size(); ++i) {
      const std::string place = fmt::format("{}/{}", at, i);
      TemplateLora lora;
      if (!object(value[i], place, {"name", "url", "scale", "filename", "sha256"})) continue;
      lora.name = text(value[i], place, "name", false);
      lora.url = url(value[i], place);
      lora.filename = file_name(value[i], place, lora.url);
      lora.sha256 = sha256(value[i], place);
      lora.scale = number(value[i], place, "scale", -100, 100).value_or(1.0);
      made.loras.push_back(std::move(lora));
    }
  }

  TemplateDefaults read_defaults(const json& value, const std::string& at) {
    TemplateDefaults made;
    if (!object(value, at,
                {"steps", "sampler", "schedule", "width", "height", "guidance_scale",
                 "prompt_prefix", "negative_prompt"}))
      return made;
    made.steps = integer(value, at, "steps", 1, 1000);
    made.width = integer(value, at, "width", 8, 16384);
    made.height = integer(value, at, "height", 8, 16384);
    made.guidance_scale = number(value, at, "guidance_scale", 0, 1000);
    made.sampler = text(value, at, "sampler", false);
    made.schedule = text(value, at, "schedule", false);
    made.prompt_prefix = text(value, at, "prompt_prefix", false);
    made.negative_prompt = text(value, at, "negative_prompt", false);
    return made;
  }

  // One file name means one file: two templates may share it only with the same URL and hash.
  void check_files(const Templates& all) {
    std::map<std::string, std::pair<std::string, std::string>> files, folders;
    const auto check = [&](auto& known, const std::string& name, const std::string& what,
                           const std::string& at, const char* field) {
      if (name.empty()) return;
      const auto [found, is_new] = known.emplace(name, std::pair{what, at});
      if (!is_new && found->second.first != what) {
        mistake(at, fmt::format("\"{}\" {} is also that of line {}, for something else", field,
                                shown(name), lines_.line_of(found->second.second)));
      }
    };
    for (const auto& [key, made] : all.by_key) {
      const std::string at = "/templates/" + pointer_part(key);
      const TemplateCheckpoint& checkpoint = made.checkpoint;
      check(files, checkpoint.filename, checkpoint.url + checkpoint.sha256,
            at + "/checkpoint/filename", "filename");
      check(folders, checkpoint.diffusers_dir, checkpoint.filename + checkpoint.prediction,
            at + "/checkpoint/diffusers_dir", "diffusers_dir");
      for (std::size_t i = 0; i < made.loras.size(); ++i) {
        check(files, made.loras[i].filename, made.loras[i].url + made.loras[i].sha256,
              fmt::format("{}/loras/{}/filename", at, i), "filename");
      }
    }
  }

  bool object(const json& value, const std::string& at, std::vector<std::string> known) {
    if (!value.is_object()) {
      mistake(at, "wants an object");
      return false;
    }
    for (const auto& [key, entry] : value.items()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      mistake(at + "/" + pointer_part(key),
              fmt::format("the field \"{}\" is not known{}", shown(key), did_you_mean(key, known)));
    }
    return true;
  }

  std::string text(const json& value, const std::string& at, const char* key, bool wanted) {
    const auto found = value.find(key);
    if (found == value.end()) {
      if (wanted) mistake(at, fmt::format("wants a \"{}\"", key));
      return "";
    }
    if (!found->is_string()) {
      mistake(at + "/" + key, fmt::format("\"{}\" wants text", key));
      return "";
    }
    const auto& content = found->get_ref<const std::string&>();
    if (content.size() > 65536 || (wanted && content.empty()))
      mistake(at + "/" + key, fmt::format("\"{}\" wants 1 to 65536 bytes of text", key));
    return content;
  }

  std::string url(const json& value, const std::string& at) {
    std::string made = text(value, at, "url", false);
    const bool web = made.starts_with("https://") || made.starts_with("http://");
    const bool plain = std::all_of(made.begin(), made.end(), [](char c) {
      return static_cast<unsigned char>(c) > 0x20 && static_cast<unsigned char>(c) < 0x7F;
    });
    if (!made.empty() && (!web || !plain))
      mistake(at + "/url", "\"url\" wants an https:// address");
    return made;
  }

  // Its own field, or what the URL ends in.
  std::string file_name(const json& value, const std::string& at, const std::string& from_url) {
    std::string made = text(value, at, "filename", false);
    if (made.empty()) made = filename_of(from_url);
    if (made.empty()) {
      mistake(at, "wants a \"filename\" (its \"url\" does not end in one)");
    } else if (!is_name(made) || !made.ends_with(".safetensors")) {
      mistake(at + "/filename",
              "\"filename\" wants a plain name of letters, digits and ._- that ends in "
              ".safetensors");
    }
    return made;
  }

  std::string sha256(const json& value, const std::string& at) {
    std::string made = text(value, at, "sha256", false);
    std::transform(made.begin(), made.end(), made.begin(),
                   [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
    if (!made.empty() && !is_sha256(made))
      mistake(at + "/sha256", "\"sha256\" wants 64 hexadecimal digits");
    return made;
  }

  std::optional<double> number(const json& value, const std::string& at, const char* key,
                               double lowest, double highest) {
    const auto found = value.find(key);
    if (found == value.end()) return std::nullopt;
    const double made = found->is_number() ? found->get<double>() : std::nan("");
    if (!(made >= lowest && made <= highest)) {
      mistake(at + "/" + key,
              fmt::format("\"{}\" wants a number from {:g} to {:g}", key, lowest, highest));
      return std::nullopt;
    }
    return made;
  }

  std::optional<std::int64_t> integer(const json& value, const std::string& at, const char* key,
                                      std::int64_t lowest, std::int64_t highest) {
    const auto made =
        number(value, at, key, static_cast<double>(lowest), static_cast<double>(highest));
    if (!made) return std::nullopt;
    if (*made != std::floor(*made)) {
      mistake(at + "/" + key, fmt::format("\"{}\" wants a whole number", key));
      return std::nullopt;
    }
    return static_cast<std::int64_t>(*made);
  }

  void mistake(const std::string& at, std::string what) {
    std::string where = at;
    std::replace(where.begin(), where.end(), '/', '.');
    if (!where.empty()) where = shown(where.substr(1)) + ": ";
    mistakes_.push_back({lines_.line_of(at), where + std::move(what)});
  }

  static std::string shown(const std::string& text) {
    std::string safe = text.substr(0, 200);
    for (char& c : safe) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) c = '?';
    }
    return safe;
  }

  static std::vector<std::string> keys(const Templates& all) {
    std::vector<std::string> list;
    for (const auto& [key, made] : all.by_key) list.push_back(key);
    return list;
  }

  const json& root_;
  const JsonLines& lines_;
  std::vector<Mistake>& mistakes_;
};

Error all_of(std::vector<Mistake> mistakes, const fs::path& file) {
  std::stable_sort(mistakes.begin(), mistakes.end(),
                   [](const Mistake& a, const Mistake& b) { return a.line < b.line; });
  std::string text = file.string();
  for (std::size_t i = 0; i < std::min(kMostShown, mistakes.size()); ++i)
    text += fmt::format("{} line {}: {}", i == 0 ? ":" : ";", mistakes[i].line, mistakes[i].text);
  if (mistakes.size() > kMostShown)
    text += fmt::format("; and {} more", mistakes.size() - kMostShown);
  return {ErrorCode::kInvalidArgument, std::move(text)};
}

}  // namespace

Result<Template> Templates::find(const std::string& key) const {
  const std::string wanted = key.empty() ? default_template : key;
  if (wanted.empty())
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: names no default_template; say which", file.string())};
  const auto found = by_key.find(wanted);
  if (found != by_key.end()) return found->second;
  std::vector<std::string> keys;
  for (const auto& [known, made] : by_key) keys.push_back(known);
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: there is no template '{}'{}", file.string(), wanted.substr(0, 200),
                           did_you_mean(wanted, keys))};
}

std::vector<TemplateCheckpoint> Templates::unique_checkpoints() const {
  std::vector<TemplateCheckpoint> list;
  std::set<std::string> seen;
  for (const auto& [key, made] : by_key) {
    if (seen.insert(made.checkpoint.diffusers_dir).second) list.push_back(made.checkpoint);
  }
  return list;
}

std::vector<TemplateLora> Templates::unique_loras() const {
  std::vector<TemplateLora> list;
  std::set<std::string> seen;
  for (const auto& [key, made] : by_key) {
    for (const TemplateLora& lora : made.loras) {
      if (seen.insert(lora.filename).second) list.push_back(lora);
    }
  }
  return list;
}

Result<Templates> parse_templates(std::string_view text, const fs::path& file) {
  JsonLines lines;
  const auto root = parse_json(text, kLimits, &lines);
  if (!root.ok())
    return Error{ErrorCode::kInvalidArgument, file.string() + ": " + root.error().message};
  Templates out;
  out.file = file;
  std::vector<Mistake> mistakes;
  Reader(*root, lines, mistakes).read(out);
  if (!mistakes.empty()) return all_of(std::move(mistakes), file);
  return out;
}

Result<Templates> read_templates(const fs::path& file) {
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (!fs::exists(status))
    return Error{ErrorCode::kNotFound, file.string() + ": no such file of templates"};
  if (!fs::is_regular_file(status))
    return Error{ErrorCode::kInvalidArgument, file.string() + ": is no regular file"};
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in.good() && !in.eof())
    return Error{ErrorCode::kIo,
                 fmt::format("{}: cannot be read ({})", file.string(), std::strerror(errno))};
  return parse_templates(text, file);
}

}  // namespace limner::platform
