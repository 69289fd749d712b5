// Where a built model lies. Programs in containers have two places for models: the folder that the
// image was built with, and a volume that outlives it. A volume mounted over the image's folder
// hides what is there, so both are looked in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::platform {

struct PlaceRequest {
  std::string dir;                            // of the model, below either place
  std::filesystem::path volume{};             // looked in first; "": there is none
  std::vector<std::filesystem::path> images;  // the image's own folders, in order
  // Whether a folder holds the model that is wanted; absent: a model_index.json is enough.
  std::function<bool(const std::filesystem::path&)> is_right{};
  // Bytes free on the volume; absent: what statvfs says.
  std::function<std::optional<std::uint64_t>(const std::filesystem::path&)> free_bytes{};
};

struct ModelPlace {
  std::filesystem::path folder;
  bool copied = false;
  std::string said;  // a sentence on what was done and why, for the log
};

// Taken from the volume when it is there; else copied onto the volume when there is one with room
// (the model's size and a twentieth), and used where it lies when not. A copy appears whole or not
// at all; of two processes that copy at once the later one's counts. Fails with kNotFound naming
// the places, kIo when a folder cannot be read. A copy that fails is no failure: `said` tells of
// it.
Result<ModelPlace> place_model(const PlaceRequest& request);

}  // namespace limner::platform
