// A single-file checkpoint seen as a diffusers folder: its networks under diffusers' names, and the
// text files (configs, tokenizers) that such a folder has beside them.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/weights/checkpoint/configs.h"
#include "engine/weights/checkpoint/family.h"

namespace limner::engine::weights {

struct SingleFileOptions {
  // For models that come without tokenizer: a folder with CLIP's vocabulary (vocab.json and
  // merges.txt, or tokenizer.json), or a model folder with tokenizer/ in it. "": none.
  std::filesystem::path tokenizer{};
  std::string prediction{};  // epsilon, v_prediction; "": what the file says
  bool ema = false;          // the averaged UNet under model_ema.
  // Without tokenizers and with SD 2's prediction left open: for looking, not for drawing.
  bool headers_only = false;
};

// Key of the safetensors metadata under which limner keeps the text files of a folder that it made
// into a single file: a JSON object from relative path to content.
inline constexpr const char* kFolderTextsKey = "limner.files";

// Immutable; shared by threads. Tensors are views over the map but for text_projection, which lies
// transposed in the file.
class SingleFile {
 public:
  // Throws Failure: what Weights::open_file and identify_checkpoint say; kNotFound when there is no
  // tokenizer anywhere, saying what to do; kInvalidArgument for options that do not fit.
  static std::shared_ptr<const SingleFile> open(const std::filesystem::path& file,
                                                const SingleFileOptions& options);
  ~SingleFile();
  SingleFile(const SingleFile&) = delete;
  SingleFile& operator=(const SingleFile&) = delete;

  const CheckpointLayout& layout() const { return layout_; }
  const Components& components() const { return components_; }
  // Relative path -> content: model_index.json, <component>/config.json, ...
  const std::map<std::string, std::string>& texts() const { return texts_; }
  // A text file parsed. Throws Failure(kNotFound) when there is none of that name.
  nlohmann::json json(const std::string& name) const;
  // Names of tensors that belong to no network (averages, the trainer's own), sorted.
  const std::vector<std::string>& left_over() const { return left_over_; }
  const std::filesystem::path& path() const { return path_; }

  // The text files below <component>/ on the disk, for readers that want a folder; it vanishes with
  // this object. Throws Failure(kIo).
  std::filesystem::path folder_of(const std::string& component) const;

 private:
  SingleFile() = default;
  void read_texts(const Weights& weights, const SingleFileOptions& options);
  void synthesise_texts(const SingleFileOptions& options);
  void add_tokenizers(const SingleFileOptions& options);

  std::filesystem::path path_;
  CheckpointLayout layout_;
  Components components_;
  std::map<std::string, std::string> texts_;
  std::vector<std::string> left_over_;
  mutable std::mutex mutex_;
  mutable std::filesystem::path temporary_;  // guarded by mutex_
};

// The tensors of a checkpoint as networks: unet, vae and the text encoders. Names that belong to
// none go to `left_over`. Throws Failure(kInvalidModel) for a tensor inside a network that no name
// table knows, or whose shape cannot be brought into diffusers' form.
Components split_checkpoint(const std::shared_ptr<const Weights>& weights,
                            const CheckpointLayout& layout, bool ema, const std::string& where,
                            std::vector<std::string>& left_over);

}  // namespace limner::engine::weights
