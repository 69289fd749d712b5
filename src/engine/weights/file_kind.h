// What a file that should hold weights really is, told by its first bytes.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"

namespace limner::engine::weights {

// Why a file of this content (or, failing that, this name) is not loaded and what to do about it,
// as an Error (kUnsupported for pickles and other formats, kInvalidModel for placeholders); nothing
// for content that is not recognised. Looks at content first: a pickle named .safetensors is still
// a pickle.
std::optional<Error> refusal_of_foreign_format(const std::filesystem::path& file,
                                               std::span<const std::byte> head);

// True for the extensions pickles go by: .bin .ckpt .pt .pth .pkl, in any case.
bool has_pickle_extension(const std::filesystem::path& file);

// The sentence about pickles.
Error pickle_refusal(const std::string& where);

}  // namespace limner::engine::weights
