// Textual-inversion embeddings (Gal et al. 2022): vectors that stand for a word of the prompt.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/nn/tensor_source.h"
#include "prompt/token_chunks.h"

namespace limner::engine::pipelines {

// The embeddings of some folders, for the text encoders of one model. A name is a file's name
// without its ending, or the token that a diffusers file holds. Forms: one tensor `emb_params`,
// `string_to_param...` or `<token>` [C] or [k, C] for models with one text encoder; `clip_l` and
// `clip_g` (or `text_encoders_0` and `_1`) for those with two. Files are read when a prompt
// mentions them; what is wrong with one is said then. Thread-safe.
class TextualInversions {
 public:
  struct Encoder {
    std::string name;  // "text_encoder", for messages
    std::int64_t width = 0;
    std::size_t most_vectors = 75;
  };
  // Folders that are not there hold nothing; of two files of one name the first folder's counts,
  // and a safetensors file before others.
  TextualInversions(const std::vector<std::filesystem::path>& folders,
                    std::vector<Encoder> encoders, const nn::Placement& placement);

  const prompt::EmbeddingNames& names(std::size_t encoder) const { return names_[encoder]; }
  // [k, C] in the compute dtype. Throws Failure: what SafetensorsFile::open does, and
  // kInvalidArgument naming both widths when the file is for another family.
  const at::Tensor& vectors(std::size_t embedding, std::size_t encoder) const;

 private:
  void find_files(const std::filesystem::path& folder);
  std::vector<at::Tensor> read(const std::filesystem::path& file) const;

  std::vector<Encoder> encoders_;
  nn::Placement placement_;
  std::map<std::string, std::filesystem::path> files_;  // by name
  std::vector<std::filesystem::path> file_of_;          // by embedding
  std::vector<prompt::EmbeddingNames> names_;           // one per encoder
  mutable std::mutex mutex_;                            // guards loaded_
  mutable std::map<std::size_t, std::vector<at::Tensor>> loaded_;
};

}  // namespace limner::engine::pipelines
