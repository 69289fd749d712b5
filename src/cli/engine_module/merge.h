// Merging adapters into a model, for `limner model merge` and `limner template build`.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/merge_options.h"
#include "engine/lora/adapter_use.h"
#include "engine/weights/checkpoint/convert.h"

namespace limner::cli {

struct AdapterToMerge {
  std::filesystem::path file;
  engine::lora::AdapterScales scales;
};

// Writes the model with the adapters merged in (engine::lora::Baker). `options.edit`, `kind` and
// the adapters' part of `inputs` are filled in here. An adapter with layers that the model does not
// have is refused unless `allow_partial`.
Result<engine::weights::WriteReport> merge_adapters(const engine::weights::ModelFolder& model,
                                                    const std::vector<AdapterToMerge>& adapters,
                                                    bool allow_partial,
                                                    engine::weights::WriteOptions options);

int merge(const MergeOptions& options, const Console& console);

}  // namespace limner::cli
