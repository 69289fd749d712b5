// What is in a model folder or weights file, and what is wrong with it: for `limner model inspect`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::engine::weights {

struct InspectOptions {
  bool hashes = true;  // SHA-256 of every file (reads all of them)
  bool values = true;  // look for NaN and infinity (reads all weights)
  // Called for every mebibyte that is hashed; may throw Failure, to stop.
  std::function<void()> between{};
};

struct FileReport {
  std::string path;  // relative to the model, with '/'
  std::uint64_t bytes = 0;
  std::string sha256;  // empty when not asked for or not readable
};

struct TensorReport {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

struct ComponentReport {
  std::string name;        // "unet"; "" for tensors of a single file that are of no network
  std::string library;     // "diffusers"
  std::string class_name;  // "UNet2DConditionModel"
  nlohmann::json config;   // its JSON config as it stands in the file; null when it has none
  std::vector<std::string> variants;  // of the weights in the folder; "" is the plain one
  std::map<std::string, std::uint64_t> parameters_by_dtype;  // "F16" -> elements
  std::uint64_t tensors = 0;
  std::uint64_t parameters = 0;
  std::uint64_t bytes = 0;        // of its tensors
  std::vector<FileReport> files;  // weights in reading order, then its other files by name
};

struct Inspection {
  std::filesystem::path path;
  std::string family;  // sd1, sd2, sdxl, sdxl-refiner, sd3, flux, qwen-image or unknown
  std::string pipeline_class;
  std::string diffusers_version;
  std::vector<ComponentReport> components;
  std::vector<FileReport> files;      // those of no component: model_index.json
  std::vector<TensorReport> tensors;  // of a single weights file only
  std::string not_a_model;  // why a single file cannot be drawn with (an adapter, a lone network)
  std::uint64_t parameters = 0;
  std::uint64_t bytes = 0;
  // SHA-256 over one line "<sha256>  <path>\n" per file, sorted by path: what
  // `sha256sum FILES | sha256sum` gives. For a single weights file the hash of the file.
  std::string sha256;
  std::vector<std::string> problems;  // sentences; empty when nothing is wrong
};

// A broken model is no failure: what is wrong with it is in `problems`. Fails with kNotFound when
// there is nothing at `path`, and with what read_model_folder and Weights::open_file say when it is
// no model at all.
Result<Inspection> inspect(const std::filesystem::path& path, const InspectOptions& options = {});

}  // namespace limner::engine::weights
