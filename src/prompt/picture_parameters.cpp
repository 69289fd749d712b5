#include "prompt/picture_parameters.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace limner::prompt {
namespace {

constexpr std::size_t kShortHash = 10;  // hexadecimal digits, as A1111 writes them

// How the prompt is to be read again; what is usual stays unsaid.
void add_prompt_options(const contract::PromptOptions& options, Infotext& text) {
  using contract::PromptSyntax, contract::Weighting;
  if (options.syntax != PromptSyntax::kA1111) {
    text.parameters.emplace_back("Prompt syntax",
                                 options.syntax == PromptSyntax::kCompel ? "compel" : "plain");
  }
  if (options.weighting != Weighting::kA1111) {
    text.parameters.emplace_back("Weighting",
                                 options.weighting == Weighting::kLpw ? "lpw" : "compel");
  }
  if (options.long_prompt == contract::LongPrompt::kTruncate) {
    text.parameters.emplace_back("Long prompt", "truncate");
  }
}

}  // namespace

Infotext picture_parameters(const contract::ValidRequest& request, const DrawnWith& drawn) {
  Infotext text;
  text.prompt = request.prompt();
  text.negative_prompt = request.negative_prompt();
  const auto add = [&](const char* key, std::string value) {
    text.parameters.emplace_back(key, std::move(value));
  };
  add("Steps", std::to_string(request.steps()));
  add("Sampler", drawn.sampler);
  if (request.schedule() != "default") add("Schedule type", request.schedule());
  add("CFG scale", fmt::format("{:g}", request.guidance_scale()));
  if (request.guidance_rescale() > 0)
    add("CFG Rescale", fmt::format("{:g}", request.guidance_rescale()));
  add("Seed", std::to_string(drawn.seed));
  add("Size", fmt::format("{}x{}", request.width(), request.height()));
  if (!drawn.model_hash.empty()) add("Model hash", drawn.model_hash.substr(0, kShortHash));
  add("Model", drawn.model);
  if (request.clip_skip() > 0) add("Clip skip", std::to_string(request.clip_skip() + 1));
  if (!drawn.loras.empty()) add("Loras", fmt::format("{}", fmt::join(drawn.loras, ", ")));
  if (!drawn.lora_hashes.empty())
    add("Lora hashes", fmt::format("{}", fmt::join(drawn.lora_hashes, ", ")));
  add_prompt_options(request.prompt_options(), text);
  if (request.eta() > 0) add("Eta", fmt::format("{:g}", request.eta()));
  add("Version", "limner " LIMNER_VERSION);
  return text;
}

}  // namespace limner::prompt
