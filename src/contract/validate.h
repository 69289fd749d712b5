// validate(): the only maker of a ValidRequest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "contract/generation_request.h"

namespace limner::contract {

// What the chosen model and machine allow, and what they take when a field is absent.
struct Limits {
  std::int64_t multiple = 8;            // sides must be divisible by this
  std::int64_t smallest_side = 8;
  std::int64_t largest_side = 8192;
  std::int64_t most_steps = 1000;
  std::int64_t most_images = 256;
  std::size_t longest_prompt = 65536;   // bytes
  std::int64_t default_width = 1024;
  std::int64_t default_height = 1024;
  std::int64_t default_steps = 30;
  double default_guidance_scale = 5.0;
  std::vector<std::string> samplers;    // known names
  std::vector<std::string> schedules;
};

// A request with every field present and in range. Only validate() makes one.
class ValidRequest {
 public:
  const GenerationRequest* operator->() const { return &fields_; }
  const GenerationRequest& fields() const { return fields_; }
  std::uint64_t seed() const { return seed_; }
  double guidance_scale() const { return guidance_scale_; }

 private:
  friend struct Validation validate(const GenerationRequest&, const Limits&, std::uint64_t);
  ValidRequest() = default;
  GenerationRequest fields_;
  std::uint64_t seed_ = 0;
  double guidance_scale_ = 0;
};

struct FieldError {
  std::string field;
  std::string message;
};

// Either a request, or every wrong field at once.
struct Validation {
  std::vector<ValidRequest> request;  // one, or none when there are errors
  std::vector<FieldError> errors;
  bool ok() const { return errors.empty(); }
  Error error() const;  // all of them in one sentence, kInvalidArgument
};

// `random_seed` is used when the request names none (0..2^32-1). Seeds may be 0..2^63-1.
Validation validate(const GenerationRequest& request, const Limits& limits, std::uint64_t random_seed);

}  // namespace limner::contract
