// Weights: the tensors of one component (unet, vae, text_encoder, ...) by name.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/weights/safetensors.h"

namespace limner::engine::weights {

// Immutable, shared by threads as shared_ptr<const Weights>. Owns the memory maps its views point
// into.
class Weights {
 public:
  // Opens the weights of a component folder as diffusers and transformers write them:
  // `model.safetensors` or `diffusion_pytorch_model.safetensors`, with `.{variant}` before the
  // extension when a variant is asked for, or their sharded `*.safetensors.index.json` (the variant
  // before or after `safetensors.index`, as different versions spell it). A variant that this
  // component does not have falls back to its plain files, as in diffusers. When no variant is
  // asked for and only one exists, that one is taken. Pickle files (.bin, .ckpt, .pt) are refused
  // with a sentence that says why and what to do.
  static Result<std::shared_ptr<const Weights>> open_component(const std::filesystem::path& folder,
                                                               std::string_view variant = {});
  // One file.
  static Result<std::shared_ptr<const Weights>> open_file(const std::filesystem::path& file);

  // nullptr when absent.
  const TensorView* find(std::string_view name) const;
  std::vector<std::string> names() const;                 // sorted
  std::uint64_t bytes() const;                            // sum over tensors
  std::vector<std::filesystem::path> files() const;       // in reading order
  Result<void> prefetch(const TensorView& tensor) const;  // see SafetensorsFile::prefetch
  void release(const TensorView& tensor) const;           // see SafetensorsFile::release

  // The entry of the first file that has one of that key in its header.
  std::optional<std::string> metadata(std::string_view key) const;

  // SHA-256 (hex, lower case) over the files' bytes in reading order; computed at first call,
  // thread-safe. Empty when a file can no longer be read.
  const std::string& sha256() const;

  // The same tensors under other names: `rename` is called for each name and returns the new one.
  // Used for the transformers 4/5 difference (`text_model.` prefix). Throws Failure(kInvalidModel)
  // when two names become one.
  static std::shared_ptr<const Weights> renamed(std::shared_ptr<const Weights> weights,
                                                std::string (*rename)(std::string_view));

  // Views over the maps of `source` under names and shapes of their own, and tensors whose bytes
  // are in `made` (which this takes over; the views into it must be of its final buffers).
  static std::shared_ptr<const Weights> of_views(
      std::shared_ptr<const Weights> source, std::map<std::string, TensorView, std::less<>> views,
      std::vector<std::vector<std::byte>> made);

  // The variants that the component folder has files of, sorted; "" stands for files without one.
  static std::vector<std::string> variants(const std::filesystem::path& folder);

  struct State;
  explicit Weights(std::unique_ptr<State> state);
  ~Weights();

 private:
  std::unique_ptr<State> state_;
};

}  // namespace limner::engine::weights
