// The adapters of a batch's rows, made ready for a forward.
#pragma once

#include <list>
#include <vector>

#include "engine/lora/attach.h"
#include "engine/nn/row_adapters.h"

namespace limner::engine::pipelines {

// Keeps what the last forwards were given: the steps of a picture mostly have the rows of the step
// before. Owned by one thread.
class BatchAdapters {
 public:
  // For the UNet's forward whose row i uses rows[i]; valid until the next call.
  const nn::RowAdapters& unet(const std::vector<const lora::AdapterList*>& rows);

 private:
  struct Built {
    std::vector<lora::AdapterList> rows;
    nn::RowAdapters adapters;
  };
  std::list<Built> kept_;  // most recently used first
};

}  // namespace limner::engine::pipelines
