// Models from one form into another: single file <-> diffusers folder, in another dtype if asked.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/weights/model_folder.h"

namespace limner::engine::weights {

// Bytes of the model read so far, of all; called after each tensor.
using WriteProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Computes new values of a tensor instead of the stored ones. `component` and `name` are diffusers'
// ("unet", "down_blocks.0..."). False: the stored bytes are taken as they are.
using EditTensor = std::function<bool(const std::string& component, const std::string& name,
                                      const TensorView& stored, std::vector<float>& values)>;

// A model file or folder that something is made from, as the manifest names it.
struct ManifestInput {
  std::string role;  // model, lora, blend, ...
  std::filesystem::path path;
  double scale = 1.0;
  std::string detail{};  // scales that one number does not tell; "": none
};

struct WriteOptions {
  std::filesystem::path output{};
  std::optional<DType> dtype{};  // F16, BF16, F32; absent: each tensor's own
  std::string variant{};         // "fp16": diffusion_pytorch_model.fp16.safetensors
  std::string source_variant{};  // of a folder that is read
  std::string kind = "convert";  // for the manifest
  std::string build_key{};       // the same: what the folder was asked to hold; "": none
  std::vector<ManifestInput> inputs{};
  EditTensor edit{};
  WriteProgress progress{};
};

struct WriteReport {
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::vector<std::string> kept{};  // files of the folder that an interrupted run had finished
  std::uint64_t kept_bytes = 0;     // of the single file's tensors, the same
};

// A diffusers folder with limner-manifest.json: tool, inputs with their hashes, files with theirs.
// One tensor at a time is in memory. Resumable, and in place only when whole (FolderWriter). Fails
// with what FolderWriter throws, kInvalidArgument when a number does not fit the dtype,
// kInvalidModel.
Result<WriteReport> write_folder(const ModelFolder& model, const WriteOptions& options);

// A single file with the original names, the folder's configs and small tokenizers in its header.
// Resumable, and in place only when whole (OutputFile). Fails with kUnsupported for a model whose
// tensors have no such names.
Result<WriteReport> write_single_file(const ModelFolder& model, const WriteOptions& options);

// The build_key of the folder's manifest; "" when there is none.
std::string build_key_of(const std::filesystem::path& folder);

// The hash a manifest names a file or a model folder by (see Inspection::sha256).
std::string content_hash(const std::filesystem::path& path);

// Text files of a model by relative path: configs, tokenizers, model_index.json.
std::map<std::string, std::string> text_files(const ModelFolder& model);

}  // namespace limner::engine::weights
