#include "cli/generate_options.h"

#include <fmt/format.h>

namespace limner::cli {
namespace {

// "WxH" or "X,Y" into two numbers.
CLI::Validator pair_of_integers(char separator, const char* shape) {
  return CLI::Validator(
      [=](std::string& text) {
        const auto at = text.find(separator);
        const auto digits = [](const std::string& part) {
          return !part.empty() && part.size() < 8 &&
                 part.find_first_not_of("0123456789") == std::string::npos;
        };
        const bool good =
            at != std::string::npos && digits(text.substr(0, at)) && digits(text.substr(at + 1));
        return good ? std::string()
                    : fmt::format("'{}' is not of the form {}", text.substr(0, 64), shape);
      },
      "");
}

template <typename Store>
void add_pair(CLI::App& command, const char* name, char separator, const char* shape,
              const char* help, Store store) {
  command
      .add_option_function<std::string>(
          name,
          [=](const std::string& text) {
            const auto at = text.find(separator);
            store(std::stoll(text.substr(0, at)), std::stoll(text.substr(at + 1)));
          },
          help)
      ->check(pair_of_integers(separator, shape))
      ->type_name(shape);
}

}  // namespace

void add_model_options(CLI::App& command, ModelOptions& options) {
  const std::string group = "Model";
  command.add_option("--model", options.model, "Name of a model, or its folder")
      ->capture_default_str()
      ->envname("LIMNER_MODEL")
      ->group(group);
  command
      .add_option("--variant", options.variant, "Take NAME.VARIANT.safetensors files, e.g. fp16")
      ->group(group);
  command.add_option("--dtype", options.dtype, "auto, float32, bfloat16 or float16")
      ->capture_default_str()
      ->envname("LIMNER_DTYPE")
      ->group(group);
  command.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str()
      ->envname("LIMNER_DEVICE")
      ->group(group);
  command.add_option("--threads", options.threads, "CPU threads; 0 for one per core")
      ->capture_default_str()
      ->envname("LIMNER_THREADS")
      ->check(CLI::Range(0, 1024))
      ->group(group);
  command.add_flag("--vae-tiling", options.vae_tiling, "Decode in overlapping tiles: less memory")
      ->group(group);
  command.add_flag("--vae-slicing", options.vae_slicing, "Decode one picture at a time")
      ->group(group);
}

void add_generate_options(CLI::App& command, GenerateOptions& options) {
  contract::GenerationRequest& request = options.request;
  command.add_option("prompt", request.prompt, "What to draw; - reads it from standard input")
      ->required();
  const std::string what = "Picture";
  command.add_option("--negative-prompt", request.negative_prompt, "What to keep away from")
      ->group(what);
  command
      .add_option("--width", request.width, "Pixels, divisible by 8; default: the model's own size")
      ->group(what);
  command.add_option("--height", request.height, "Pixels, divisible by 8")->group(what);
  command.add_option("--steps", request.steps, "Sampling steps; default: the model's own")
      ->group(what);
  command
      .add_option("--guidance-scale", request.guidance_scale,
                  "How closely to follow the prompt; off at 1 and below")
      ->group(what);
  command
      .add_option("--guidance-rescale", request.guidance_rescale,
                  "0..1, against over-exposure at high guidance")
      ->group(what);
  command
      .add_option("--sampler", request.sampler,
                  "euler, euler_a, ddim, dpmpp_2m, ...; default: the checkpoint's own")
      ->group(what);
  command.add_option("--schedule", request.schedule, "default, karras, exponential, beta, ...")
      ->capture_default_str()
      ->group(what);
  command.add_option("--eta", request.eta, "0..1: fresh noise per step (ddim, tcd)")->group(what);
  command.add_option("--seed", request.seed, "Seed of the first picture; default: random")
      ->group(what);
  command.add_option("--num-images", request.num_images, "Pictures, of seeds seed, seed+1, ...")
      ->capture_default_str()
      ->group(what);
  command.add_option("--batch-size", options.batch_size, "Pictures drawn at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024))
      ->group(what);
  command
      .add_option("--clip-skip", request.clip_skip, "Text-encoder layers to leave out at the end")
      ->group(what);
  command
      .add_option_function<std::string>(
          "--long-prompt", [](const std::string&) {},
          "What to do with a prompt beyond 75 tokens: truncate (and say what was cut)")
      ->check(CLI::IsMember({"truncate"}))
      ->group(what);
  contract::MicroConditioning* micro = &request.micro;
  add_pair(command, "--original-size", 'x', "WxH",
           "SDXL: size of the picture this one is cropped from",
           [micro](std::int64_t w, std::int64_t h) {
             micro->original_width = w;
             micro->original_height = h;
           });
  add_pair(command, "--crop", ',', "LEFT,TOP", "SDXL: where this picture was cropped",
           [micro](std::int64_t left, std::int64_t top) {
             micro->crop_left = left;
             micro->crop_top = top;
           });
  add_pair(command, "--target-size", 'x', "WxH", "SDXL: size the picture is meant for",
           [micro](std::int64_t w, std::int64_t h) {
             micro->target_width = w;
             micro->target_height = h;
           });
  const std::string where = "Output";
  command.add_option("--output", options.output, "File to write; {seed} and {index} are filled in")
      ->capture_default_str()
      ->group(where);
  command
      .add_option("--format", options.format,
                  "png, jpeg, webp or avif; default: by the output's extension")
      ->group(where);
  command.add_option("--quality", options.quality, "1..100, for jpeg, webp and avif")
      ->capture_default_str()
      ->check(CLI::Range(1, 100))
      ->group(where);
  command.add_option("--preview", options.preview, "Keep a rough PNG here while drawing")
      ->group(where);
  command
      .add_option(
          "--dump-tensors", options.dump_tensors,
          "Write every step's tensors to this safetensors file, for comparison with diffusers")
      ->group(where);
  add_model_options(command, options.place);
  command.footer(
      "Example:\n  limner generate \"a red circle above a blue square on a white background\" "
      "--seed 1 "
      "--output circle.png");
}

void add_bench_options(CLI::App& command, BenchOptions& options) {
  add_model_options(command, options.place);
  command.add_option("--width", options.width, "Pixels; default: the model's own size");
  command.add_option("--height", options.height, "Pixels");
  command.add_option("--steps", options.steps, "Steps to time")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command.add_option("--batch-size", options.batch_size, "Pictures per step")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  command.add_option("--guidance-scale", options.guidance_scale, "Default: the model's own");
  command.add_option("--prompt", options.prompt, "What to draw")->capture_default_str();
  command.footer("Example:\n  limner bench --model miniature --steps 12 --json");
}

}  // namespace limner::cli
