// Whether what an interrupted write left was made from the same things.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engine/weights/checkpoint/convert.h"

namespace limner::engine::weights {

// A hash over the paths, sizes and times of what is read, the model's texts, and what is made of
// it. `weights` are the model's by component.
std::string write_key(const ModelFolder& model,
                      const std::map<std::string, std::shared_ptr<const Weights>>& weights,
                      const WriteOptions& options);

}  // namespace limner::engine::weights
