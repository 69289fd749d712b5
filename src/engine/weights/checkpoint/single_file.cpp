#include "engine/weights/checkpoint/single_file.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <array>
#include <fstream>
#include <iterator>

#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 6> kTokenizerFiles = {"vocab.json",
                                                        "merges.txt",
                                                        "tokenizer.json",
                                                        "tokenizer_config.json",
                                                        "special_tokens_map.json",
                                                        "added_tokens.json"};
constexpr std::uint64_t kLargestText = 16u << 20;

std::string read_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in.good() && !in.eof())
    throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be read", quote(file.string())));
  if (text.size() > kLargestText)
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: larger than {} MiB", quote(file.string()), kLargestText >> 20));
  return text;
}

std::string pretty(const nlohmann::json& value) {
  return value.dump(2) + "\n";
}

// "model_index.json" or "tokenizer/vocab.json": at most one plain folder, and a text file's ending.
bool is_text_path(const std::string& path) {
  const auto plain = [](const std::string& part) {
    return !part.empty() && part[0] != '.' && part.size() <= 128 &&
           part.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
  };
  const std::size_t slash = path.find('/');
  const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
  const bool folder_fine = slash == std::string::npos || plain(path.substr(0, slash));
  const std::string extension = fs::path(file).extension().string();
  return folder_fine && plain(file) && (extension == ".json" || extension == ".txt");
}

bool has_vocabulary(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "tokenizer.json", ignored) ||
         (fs::exists(folder / "vocab.json", ignored) && fs::exists(folder / "merges.txt", ignored));
}

// CLIP's tokenizer as diffusers' folders configure it: OpenCLIP's towers were trained with "!"
// (the word of number 0) as padding, CLIP's own with the end token.
nlohmann::json tokenizer_config(bool open_clip) {
  return {{"add_prefix_space", false},
          {"bos_token", "<|startoftext|>"},
          {"do_lower_case", true},
          {"eos_token", "<|endoftext|>"},
          {"model_max_length", 77},
          {"pad_token", open_clip ? "!" : "<|endoftext|>"},
          {"tokenizer_class", "CLIPTokenizer"},
          {"unk_token", "<|endoftext|>"}};
}

}  // namespace

SingleFile::~SingleFile() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

std::shared_ptr<const SingleFile> SingleFile::open(const fs::path& file,
                                                   const SingleFileOptions& options) {
  const std::shared_ptr<SingleFile> self(new SingleFile);
  self->path_ = file;
  const std::string where = short_name(file);
  const auto weights = Weights::open_file(file).value_or_throw();
  self->layout_ = identify_checkpoint(*weights, where);
  self->components_ =
      split_checkpoint(weights, self->layout_, options.ema, where, self->left_over_);
  self->read_texts(*weights, options);
  return self;
}

nlohmann::json SingleFile::json(const std::string& name) const {
  const auto found = texts_.find(name);
  const std::string where = short_name(path_) + ": " + name;
  if (found == texts_.end()) throw Failure(ErrorCode::kNotFound, where + ": no such file");
  return parse_json(found->second, where);
}

void SingleFile::read_texts(const Weights& weights, const SingleFileOptions& options) {
  const std::string where = short_name(path_);
  if (const auto carried = weights.metadata(kFolderTextsKey)) {
    const nlohmann::json files = parse_json(*carried, where + ": " + kFolderTextsKey);
    if (!files.is_object())
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: '{}' wants a JSON object", where, kFolderTextsKey));
    for (const auto& [path, text] : files.items()) {
      if (!is_text_path(path) || !text.is_string()) {
        throw Failure(ErrorCode::kInvalidModel,
                      fmt::format("{}: '{}' holds {}, which is no text file of a model folder",
                                  where, kFolderTextsKey, quote(path)));
      }
      texts_[path] = text.get<std::string>();
    }
  } else {
    synthesise_texts(options);
  }
  if (!options.prediction.empty() && texts_.contains("scheduler/scheduler_config.json")) {
    nlohmann::json config = json("scheduler/scheduler_config.json");
    config["prediction_type"] = options.prediction;
    texts_["scheduler/scheduler_config.json"] = pretty(config);
  }
  add_tokenizers(options);
}

void SingleFile::synthesise_texts(const SingleFileOptions& options) {
  const std::string prediction = options.headers_only && options.prediction.empty() &&
                                         layout_.family == CheckpointFamily::kSd2 &&
                                         layout_.marker == PredictionMarker::kNone
                                     ? "v_prediction"
                                     : options.prediction;
  nlohmann::json scheduler = scheduler_config(layout_, prediction, short_name(path_));
  if (prediction != options.prediction) scheduler.erase("prediction_type");
  texts_["scheduler/scheduler_config.json"] = pretty(scheduler);
  for (const auto& [component, weights] : components_) {
    texts_[component + "/config.json"] = pretty(component_config(layout_, component, components_));
  }
  texts_["model_index.json"] = pretty(model_index(layout_, scheduler));
}

void SingleFile::add_tokenizers(const SingleFileOptions& options) {
  for (const TowerPlace& tower : layout_.towers) {
    const std::string name =
        "tokenizer" + tower.component.substr(std::string("text_encoder").size());
    const bool carried =
        texts_.contains(name + "/vocab.json") || texts_.contains(name + "/tokenizer.json");
    if (carried) continue;
    const fs::path& folder = options.tokenizer;
    if (folder.empty()) {
      if (options.headers_only) continue;
      throw Failure(
          ErrorCode::kNotFound,
          fmt::format(
              "{}: a single file carries no tokenizer; give a folder with CLIP's vocab.json "
              "and merges.txt (the tokenizer/ of any Stable Diffusion folder has them) with "
              "--tokenizer or LIMNER_TOKENIZER, or put it at models/clip-tokenizer",
              short_name(path_)));
    }
    const bool of_a_model = has_vocabulary(folder / name);
    const fs::path from = of_a_model                             ? folder / name
                          : has_vocabulary(folder / "tokenizer") ? folder / "tokenizer"
                                                                 : folder;
    if (!has_vocabulary(from)) {
      throw Failure(ErrorCode::kNotFound,
                    fmt::format("{}: no tokenizer there (want vocab.json and merges.txt, or "
                                "tokenizer.json)",
                                quote(folder.string())));
    }
    std::erase_if(texts_, [&](const auto& text) { return text.first.starts_with(name + "/"); });
    for (const char* file : kTokenizerFiles) {
      std::error_code ignored;
      if (fs::exists(from / file, ignored)) texts_[name + "/" + file] = read_text(from / file);
    }
    // A folder of words alone, or one made for another tower, says nothing about this one's
    // padding.
    if (!of_a_model) {
      texts_.erase(name + "/special_tokens_map.json");
      texts_[name + "/tokenizer_config.json"] = pretty(tokenizer_config(tower.open_clip));
    }
  }
}

fs::path SingleFile::folder_of(const std::string& component) const {
  const std::lock_guard lock(mutex_);
  if (temporary_.empty()) {
    std::string pattern = (fs::temp_directory_path() / "limner-texts-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr)
      throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be made", quote(pattern)));
    temporary_ = pattern;
    for (const auto& [path, text] : texts_) {
      const fs::path file = temporary_ / path;
      std::error_code error;
      fs::create_directories(file.parent_path(), error);
      std::ofstream out(file, std::ios::binary);
      out.write(text.data(), static_cast<std::streamsize>(text.size()));
      if (!out.flush())
        throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be written", quote(file.string())));
    }
  }
  return temporary_ / component;
}

}  // namespace limner::engine::weights
