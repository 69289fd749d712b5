// validate(): the only maker of a ValidRequest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "contract/generation_request.h"
#include "contract/prompt_options.h"

namespace limner::contract {

// What the chosen model and machine allow, and what is taken when a field is absent.
struct Limits {
  std::int64_t multiple = 8;  // sides must be divisible by this
  std::int64_t smallest_side = 8;
  std::int64_t largest_side = 16384;
  std::int64_t most_steps = 1000;
  std::int64_t most_images = 1024;
  std::int64_t most_clip_skip = 0;
  bool micro_conditioning = true;       // the model is told original size, crop and target size
  std::size_t longest_prompt = 262144;  // bytes
  std::int64_t default_width = 1024;
  std::int64_t default_height = 1024;
  std::int64_t default_steps = 30;
  double default_guidance_scale = 5.0;
  std::vector<std::string> samplers;  // known names
  std::vector<std::string> schedules;
};

// A request with every field present and in range. Plain data from here on.
class ValidRequest {
 public:
  const std::string& prompt() const { return asked_.prompt; }
  const std::string& negative_prompt() const { return asked_.negative_prompt; }
  std::int64_t width() const { return *asked_.width; }
  std::int64_t height() const { return *asked_.height; }
  std::int64_t steps() const { return *asked_.steps; }
  double guidance_scale() const { return *asked_.guidance_scale; }
  double guidance_rescale() const { return asked_.guidance_rescale; }
  const std::string& sampler() const { return asked_.sampler; }
  const std::string& schedule() const { return asked_.schedule; }
  std::int64_t num_images() const { return asked_.num_images; }
  std::int64_t clip_skip() const { return asked_.clip_skip; }
  double eta() const { return asked_.eta; }
  // Of image `index`: the request's seed + index.
  std::uint64_t seed(std::int64_t index = 0) const {
    return static_cast<std::uint64_t>(*asked_.seed) + static_cast<std::uint64_t>(index);
  }
  const MicroConditioning& micro() const { return asked_.micro; }
  const PromptOptions& prompt_options() const { return prompt_options_; }
  bool extract_negative() const { return asked_.extract_negative; }

 private:
  friend class Validator;
  ValidRequest(GenerationRequest asked, const PromptOptions& prompt_options)
      : asked_(std::move(asked)), prompt_options_(prompt_options) {}
  GenerationRequest asked_;  // every optional is filled
  PromptOptions prompt_options_;
};

struct FieldError {
  std::string field;    // the HTTP API's name: "guidance_scale"
  std::string message;  // "must be between 0 and 100, got 1e+09"
};

// Either a request, or every wrong field at once.
struct Validation {
  std::optional<ValidRequest> request;
  std::vector<FieldError> errors;
  bool ok() const { return request.has_value(); }
  Error error() const;  // all of them in one sentence, kInvalidArgument
};

// `random_seed` is taken when the request names none. Seeds may be 0..2^63-1-num_images.
Validation validate(GenerationRequest request, const Limits& limits, std::uint64_t random_seed);

}  // namespace limner::contract
