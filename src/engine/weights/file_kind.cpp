#include "engine/weights/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

std::string lower_extension(const std::filesystem::path& file) {
  std::string extension = file.extension().string();
  for (char& c : extension) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return extension;
}

}  // namespace

bool has_pickle_extension(const std::filesystem::path& file) {
  constexpr std::array<std::string_view, 5> kExtensions = {".bin", ".ckpt", ".pt", ".pth", ".pkl"};
  return std::find(kExtensions.begin(), kExtensions.end(), lower_extension(file)) !=
         kExtensions.end();
}

Error pickle_refusal(const std::string& where) {
  return {ErrorCode::kUnsupported,
          where +
              ": is a Python pickle, which can run code when it is opened, so limner never opens "
              "one; convert it to "
              "safetensors first (in Python: load it with weights_only=True and save it with "
              "safetensors.torch.save_file, or save_pretrained with safe_serialization=True)"};
}

std::optional<Error> refusal_of_foreign_format(const std::filesystem::path& file,
                                               std::span<const std::byte> head) {
  const std::string_view bytes(reinterpret_cast<const char*>(head.data()), head.size());
  const std::string where = short_name(file);
  // A zip is what torch.save writes since 1.6; before that it was bare pickles of protocol 2.
  const bool zip = bytes.starts_with("PK\x03\x04") || bytes.starts_with("PK\x05\x06");
  const bool pickle = bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 1 && bytes[1] <= 5;
  if (zip || pickle) return pickle_refusal(where);
  if (bytes.starts_with("version https://git-lfs")) {
    return Error{ErrorCode::kInvalidModel, where +
                                               ": is a Git LFS pointer, not the weights "
                                               "themselves; run `git lfs pull` in that repository"};
  }
  if (bytes.starts_with("GGUF")) {
    return Error{ErrorCode::kUnsupported, where + ": is a GGUF file; limner reads safetensors"};
  }
  if (bytes.starts_with("\x89HDF")) {
    return Error{ErrorCode::kUnsupported, where + ": is an HDF5 file; limner reads safetensors"};
  }
  if (bytes.starts_with("<!") || bytes.starts_with("<html") || bytes.starts_with("<?xml")) {
    return Error{
        ErrorCode::kInvalidModel,
        where +
            ": is a web page, not weights; the download was probably answered by an error page"};
  }
  if (has_pickle_extension(file)) return pickle_refusal(where);
  return std::nullopt;
}

}  // namespace limner::engine::weights
