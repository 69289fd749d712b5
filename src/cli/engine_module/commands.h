// The commands that need the engine.
#pragma once

#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "cli/config_options.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/interrupt.h"
#include "cli/lora_paths.h"
#include "cli/runpod_options.h"
#include "engine/engine.h"

namespace limner::cli {

int generate(const GenerateOptions& options, const Console& console);
int bench(const BenchOptions& options, const Console& console);
int serve(const ConfigOptions& options, const Console& console);
int runpod(const RunpodOptions& options, const Console& console);
std::string device_report();

// From the model options to a loaded engine.
Result<engine::Composition> composition(const ModelOptions& options);

// From --lora to what a picture takes: weights read, names looked up, URLs fetched.
Result<std::vector<engine::PictureAdapter>> picture_adapters(
    const LoraOptions& options, const engine::lora::AdapterFolders& folders,
    const Console& console);
// "style.safetensors: LoRA of rank 8 for 192 layers (unet 192), 2.1 MiB"
std::string describe(const engine::lora::AdapterReport& report);

// SHA-256 of a model folder as `limner model inspect` gives it, computed on its own thread;
// remembered for folders that did not change since, under $XDG_CACHE_HOME/limner.
std::future<std::string> model_hash(std::filesystem::path folder);

}  // namespace limner::cli
