// One factory per sampler file; registry.cpp is their only caller. `request.steps` is within range
// and the prediction type is one the registry row lists; each throws Failure for what else it
// cannot do.
#pragma once

#include <memory>

#include "engine/samplers/sampler.h"
#include "engine/samplers/settings.h"

namespace limner::engine::samplers {

using SamplerPtr = std::unique_ptr<Sampler>;

SamplerPtr make_euler(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_euler_ancestral(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_ddim(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_ddpm(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_dpm_solver_multistep(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_dpm_solver_singlestep(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_heun(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_lms(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_pndm(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_unipc(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_deis(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_lcm(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_tcd(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_kdpm2(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_kdpm2_ancestral(const Settings& settings, const SamplerRequest& request);
SamplerPtr make_flow_match_euler(const Settings& settings, const SamplerRequest& request);

}  // namespace limner::engine::samplers
