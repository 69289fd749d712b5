// An adapter fitted to one model: its modules found among the model's layers, checked against their
// shapes and turned into branches.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/lora/adapter_file.h"
#include "engine/lora/adapter_use.h"
#include "engine/lora/model_layers.h"
#include "engine/lora/report.h"
#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"

namespace limner::engine::lora {

struct AttachedLayer {
  std::string component;
  std::string name;  // as the network calls it
  std::vector<nn::Branch> branches;
};

// Immutable; shared by threads. Needs neither the file nor the model's layers any more; on a CPU
// its tensors lie where the file was loaded.
struct AttachedAdapter {
  std::vector<AttachedLayer> layers;
  AdapterReport report;
  std::uint64_t memory_bytes = 0;  // that it keeps alive
  std::string identity;            // equal identities draw alike; set by who loads it
  bool changes(std::string_view component) const {
    return report.matched.contains(std::string(component));
  }
};

struct AttachOptions {
  bool allow_partial = false;
  std::string identity{};  // see AttachedAdapter
};

// Throws Failure(kInvalidModel) when keys are not matched and `allow_partial` is not set, when none
// is, or when a module does not fit its layer.
std::shared_ptr<const AttachedAdapter> attach(const AdapterFile& file, const ModelLayers& model,
                                              const nn::Placement& placement,
                                              const AttachOptions& options = {});

// What one picture uses.
struct ScaledAdapter {
  std::shared_ptr<const AttachedAdapter> adapter;
  AdapterScales scales;
  bool operator==(const ScaledAdapter&) const = default;
};
using AdapterList = std::vector<ScaledAdapter>;

// For the forward of one network whose row i uses rows[i].
nn::RowAdapters row_adapters(std::string_view component, std::span<const AdapterList* const> rows);

}  // namespace limner::engine::lora
