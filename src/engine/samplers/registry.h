// The list of samplers: one line each in registry.cpp.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/samplers/sampler.h"

namespace limner::engine::samplers {

struct SamplerInfo {
  std::string name;         // "dpmpp_2m"
  std::string title;        // "DPM++ 2M"
  std::string class_name;   // diffusers class, "DPMSolverMultistepScheduler"
  bool stochastic = false;  // draws noise while stepping
};

const std::vector<SamplerInfo>& all_samplers();
const std::vector<std::string>& all_schedules();

// Our name of the sampler the checkpoint itself asks for. kInvalidModel for a class that is not
// known.
Result<std::string> checkpoint_sampler(const nlohmann::json& scheduler_config);

// `scheduler_config` is the checkpoint's scheduler_config.json. With an empty request.name the
// sampler is the one its
// `_class_name` and flags say. When another name is asked for, the shared settings (betas,
// prediction type, spacing, offset, shifts) carry over and the rest takes that sampler's defaults,
// as diffusers' `from_config` does. Errors: kInvalidArgument for an unknown sampler or schedule
// (with near names), one that this sampler cannot take, or steps outside 1..1000; kInvalidModel for
// a config key that would change the computation and is not known.
Result<std::unique_ptr<Sampler>> make_sampler(const nlohmann::json& scheduler_config,
                                              const SamplerRequest& request);

}  // namespace limner::engine::samplers
