#include "contract/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/suggest.h"

namespace limner::contract {

Error Validation::error() const {
  std::string message;
  for (const FieldError& wrong : errors) {
    message += fmt::format("{}{} {}", message.empty() ? "" : "; ", wrong.field, wrong.message);
  }
  return Error{ErrorCode::kInvalidArgument, message};
}

// Collects the wrong fields of one request and fills in the absent ones.
class Validator {
 public:
  Validator(GenerationRequest request, const Limits& limits)
      : request_(std::move(request)), limits_(limits) {}

  Validation run(std::uint64_t random_seed) {
    check_text("prompt", request_.prompt);
    check_text("negative_prompt", request_.negative_prompt);
    check_side("width", request_.width, limits_.default_width);
    check_side("height", request_.height, limits_.default_height);
    if (!request_.steps) request_.steps = limits_.default_steps;
    check_range("steps", *request_.steps, 1, limits_.most_steps);
    check_range("num_images", request_.num_images, 1, limits_.most_images);
    check_range("clip_skip", request_.clip_skip, 0, limits_.most_clip_skip);
    if (!request_.guidance_scale) request_.guidance_scale = limits_.default_guidance_scale;
    check_number("guidance_scale", *request_.guidance_scale, 0, 100);
    check_number("guidance_rescale", request_.guidance_rescale, 0, 1);
    check_number("eta", request_.eta, 0, 1);
    check_name("sampler", request_.sampler, limits_.samplers, /*may_be_empty=*/true);
    check_name("schedule", request_.schedule, limits_.schedules, /*may_be_empty=*/false);
    if (!request_.seed) request_.seed = static_cast<std::int64_t>(random_seed >> 1);
    check_range("seed", *request_.seed, 0,
                std::numeric_limits<std::int64_t>::max() - limits_.most_images);
    check_micro();
    const PromptOptions prompt_options = check_prompt_options();
    Validation validation;
    validation.errors = std::move(errors_);
    if (validation.errors.empty())
      validation.request = ValidRequest(std::move(request_), prompt_options);
    return validation;
  }

 private:
  void wrong(std::string field, std::string message) {
    errors_.push_back({std::move(field), std::move(message)});
  }

  void check_text(const char* field, const std::string& text) {
    if (text.size() > limits_.longest_prompt) {
      wrong(field, fmt::format("must be at most {} bytes long, got {}", limits_.longest_prompt,
                               text.size()));
    }
  }

  void check_side(const char* field, std::optional<std::int64_t>& side, std::int64_t fallback) {
    if (!side) side = fallback;
    if (*side < limits_.smallest_side || *side > limits_.largest_side) {
      wrong(field, fmt::format("must be between {} and {} pixels, got {}", limits_.smallest_side,
                               limits_.largest_side, *side));
    } else if (*side % limits_.multiple != 0) {
      const std::int64_t below = *side / limits_.multiple * limits_.multiple;
      wrong(field, fmt::format("must be divisible by {}, got {}; the nearest are {} and {}",
                               limits_.multiple, *side, below, below + limits_.multiple));
    }
  }

  void check_range(const char* field, std::int64_t value, std::int64_t lowest,
                   std::int64_t highest) {
    if (value < lowest || value > highest) {
      wrong(field, fmt::format("must be between {} and {}, got {}", lowest, highest, value));
    }
  }

  void check_number(const char* field, double value, double lowest, double highest) {
    if (!std::isfinite(value) || value < lowest || value > highest) {
      wrong(field, fmt::format("must be between {} and {}, got {}", lowest, highest, value));
    }
  }

  void check_name(const char* field, const std::string& wanted,
                  const std::vector<std::string>& known, bool may_be_empty) {
    if (wanted.empty() && may_be_empty) return;
    if (std::find(known.begin(), known.end(), wanted) != known.end()) return;
    const std::string near = did_you_mean(wanted, known);
    wrong(field,
          fmt::format("'{}' is not known{}", wanted.substr(0, 64),
                      near.empty() ? fmt::format("; known are {}", fmt::join(known, ", ")) : near));
  }

  // The position of `wanted` among `known`; 0 when it is not there, which is noted.
  std::size_t choice(const char* field, const std::string& wanted,
                     const std::vector<std::string>& known) {
    check_name(field, wanted, known, /*may_be_empty=*/false);
    const auto at = std::find(known.begin(), known.end(), wanted);
    return at == known.end() ? 0 : static_cast<std::size_t>(at - known.begin());
  }

  PromptOptions check_prompt_options() {
    PromptOptions options;
    options.long_prompt =
        static_cast<LongPrompt>(choice("long_prompt", request_.long_prompt, {"chunk", "truncate"}));
    if (request_.prompt_syntax.empty()) {
      const bool like_diffusers = options.long_prompt == LongPrompt::kTruncate;
      request_.prompt_syntax = like_diffusers ? "plain" : "a1111";
    }
    options.syntax = static_cast<PromptSyntax>(
        choice("prompt_syntax", request_.prompt_syntax, {"a1111", "compel", "plain"}));
    if (request_.weighting.empty()) {
      request_.weighting = options.syntax == PromptSyntax::kCompel ? "compel" : "a1111";
    }
    options.weighting =
        static_cast<Weighting>(choice("weighting", request_.weighting, {"a1111", "lpw", "compel"}));
    return options;
  }

  void check_micro() {
    MicroConditioning& micro = request_.micro;
    if (!limits_.micro_conditioning) {
      refuse_micro("original_size", micro.original_width || micro.original_height);
      refuse_micro("crop", micro.crop_left || micro.crop_top);
      refuse_micro("target_size", micro.target_width || micro.target_height);
    }
    if (!micro.crop_left) micro.crop_left = 0;
    if (!micro.crop_top) micro.crop_top = 0;
    if (!micro.original_width) micro.original_width = request_.width;
    if (!micro.original_height) micro.original_height = request_.height;
    if (!micro.target_width) micro.target_width = request_.width;
    if (!micro.target_height) micro.target_height = request_.height;
    if (!errors_.empty()) return;  // sizes copied from wrong ones would be reported twice
    constexpr std::int64_t kMost = 65536;
    check_range("original_size", std::min(*micro.original_width, *micro.original_height), 1, kMost);
    check_range("original_size", std::max(*micro.original_width, *micro.original_height), 1, kMost);
    check_range("target_size", std::min(*micro.target_width, *micro.target_height), 1, kMost);
    check_range("target_size", std::max(*micro.target_width, *micro.target_height), 1, kMost);
    check_range("crop", std::min(*micro.crop_left, *micro.crop_top), 0, kMost);
    check_range("crop", std::max(*micro.crop_left, *micro.crop_top), 0, kMost);
  }

  void refuse_micro(const char* field, bool given) {
    if (given) wrong(field, "is not understood by this model: only SDXL takes it");
  }

  GenerationRequest request_;
  const Limits& limits_;
  std::vector<FieldError> errors_;
};

Validation validate(GenerationRequest request, const Limits& limits, std::uint64_t random_seed) {
  return Validator(std::move(request), limits).run(random_seed);
}

}  // namespace limner::contract
