// The options of `limner generate` and `limner bench`, parsed and not yet checked against a model.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.h"
#include "contract/generation_request.h"

namespace limner::cli {

// Where and how a model is placed.
struct ModelOptions {
  std::string model = "miniature";  // a name, a folder or a single file
  std::string variant;
  std::string tokenizer;   // "": clip-tokenizer/ of the model folders
  std::string prediction;  // "": what the model says
  std::string dtype = "auto";
  std::string device = "auto";
  int threads = 0;
  bool vae_tiling = false;
  bool vae_slicing = false;
  std::string offload = "auto";
};

// Adapters, as written.
struct LoraOptions {
  std::vector<std::string> use;      // PATH|NAME[:WEIGHT]
  std::vector<std::string> folders;  // to look for names in, before all others
  bool allow_partial = false;
};

struct GenerateOptions {
  ModelOptions place;
  LoraOptions loras;
  std::vector<std::string> embeddings;  // folders of textual inversions, before the usual ones
  std::string template_name;            // "": none
  std::string templates;                // the file; "": the usual places
  std::string prompt_prefix;            // of the template, before the prompt
  std::filesystem::path prompts_file;   // empty: the one prompt of the request
  contract::GenerationRequest request;
  std::int64_t batch_size = 1;
  std::string output = "limner-{seed}.png";
  std::string format;  // "": from the output's extension
  int quality = 92;
  std::filesystem::path dump_tensors;  // empty: none
  std::filesystem::path preview;       // empty: none
};

struct BenchOptions {
  ModelOptions place;
  std::optional<std::int64_t> width, height;
  std::int64_t steps = 8;
  std::int64_t batch_size = 1;
  std::optional<double> guidance_scale;
  std::string prompt = "a red circle above a blue square on a white background";
};

void add_model_options(CLI::App& command, ModelOptions& options);
void add_lora_options(CLI::App& command, LoraOptions& options);
void add_generate_options(CLI::App& command, GenerateOptions& options);
void add_bench_options(CLI::App& command, BenchOptions& options);

}  // namespace limner::cli
