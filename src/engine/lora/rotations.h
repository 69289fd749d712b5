// What OFT and BOFT multiply a weight with.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/lora/module_reader.h"

namespace limner::engine::lora {

// Block-diagonal matrices minus the identity, blocks [n, m, m] float32.
struct Rotation {
  at::Tensor blocks;
  bool on_input = false;  // W becomes W M^T (PEFT), else M W (LyCORIS, PEFT before 0.15)
  at::Tensor factors;     // of the outputs, afterwards, [out]; undefined for ones
};

// Of a module of kind OFT or BOFT. Throws Failure(kInvalidModel).
Rotation rotation_of(const ModuleReader& reader);

}  // namespace limner::engine::lora
