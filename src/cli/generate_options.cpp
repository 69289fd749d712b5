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
  command.add_option("--model", options.model, "Name of a model, its folder or its single file")
      ->capture_default_str()
      ->envname("LIMNER_MODEL")
      ->group(group);
  command
      .add_option("--variant", options.variant, "Take NAME.VARIANT.safetensors files, e.g. fp16")
      ->group(group);
  command
      .add_option("--tokenizer", options.tokenizer,
                  "Folder with CLIP's vocab.json and merges.txt, for models that come without")
      ->envname("LIMNER_TOKENIZER")
      ->group(group);
  command
      .add_option(
          "--prediction", options.prediction,
          "What the network predicts: epsilon or v_prediction; default: what the model says")
      ->check(CLI::IsMember({"epsilon", "v_prediction"}))
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
  command
      .add_option("--offload", options.offload,
                  "What leaves the device between its uses: none, model (one network at a time), "
                  "sequential (one layer at a time), auto (model on a GPU of less than 20 GB)")
      ->check(CLI::IsMember({"auto", "none", "model", "sequential"}))
      ->capture_default_str()
      ->envname("LIMNER_OFFLOAD")
      ->group(group);
  command.add_flag("--vae-slicing", options.vae_slicing, "Decode one picture at a time")
      ->group(group);
}

void add_lora_options(CLI::App& command, LoraOptions& options) {
  const std::string group = "Adapters";
  command
      .add_option("--lora", options.use,
                  "LoRA and its kin, by file, name or https URL: NAME, NAME:0.8, or by parts "
                  "NAME:unet=0.8,te=0.5,te2=0.5,blocks=down.1:0.5/mid:1/up:0 (blocks: factors of "
                  "the unet's weight; what is left out is 1); repeatable")
      ->type_name("PATH|NAME|URL[:WEIGHT]")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--loras", options.folders,
                  "Folder to look for adapter names in, before the usual ones; repeatable")
      ->type_name("DIR")
      ->allow_extra_args(false)
      ->check(CLI::ExistingDirectory)
      ->group(group);
  command
      .add_flag("--lora-allow-partial", options.allow_partial,
                "Take adapters some of whose keys match nothing in the model")
      ->group(group);
}

void add_prompt_options(CLI::App& command, GenerateOptions& options) {
  const std::string group = "Prompt";
  contract::GenerationRequest& request = options.request;
  command
      .add_option(
          "--prompt-syntax", request.prompt_syntax,
          "a1111: (word:1.3), [word], BREAK, AND, [from:to:0.5], [a|b], <lora:name:0.8>; "
          "compel: word++, (words)1.2, (\"a\", \"b\").blend(1, 2), .and(); plain: no marks; "
          "default: a1111")
      ->check(CLI::IsMember({"a1111", "compel", "plain"}))
      ->group(group);
  command
      .add_option("--long-prompt", request.long_prompt,
                  "Beyond 75 tokens: chunk (all of it, 75 tokens at a time) or truncate (what "
                  "diffusers does; the syntax is then plain unless you name one)")
      ->capture_default_str()
      ->check(CLI::IsMember({"chunk", "truncate"}))
      ->group(group);
  command
      .add_option("--weighting", request.weighting,
                  "What weights do: a1111 (multiply, restore the mean), lpw (from the end token's "
                  "state), compel (from the empty prompt's; the default with its syntax)")
      ->check(CLI::IsMember({"a1111", "lpw", "compel"}))
      ->group(group);
  command
      .add_flag("--extract-negative", request.extract_negative,
                "Take \"### negative: ...\" and \"--no ...\" out of the prompt as negative prompt")
      ->group(group);
  command
      .add_option("--embeddings", options.embeddings,
                  "Folder of textual inversions, named in the prompt by their file names; "
                  "repeatable")
      ->type_name("DIR")
      ->allow_extra_args(false)
      ->check(CLI::ExistingDirectory)
      ->group(group);
}

void add_generate_options(CLI::App& command, GenerateOptions& options) {
  contract::GenerationRequest& request = options.request;
  CLI::Option* prompt =
      command.add_option("prompt", request.prompt, "What to draw; - reads it from standard input");
  command
      .add_option("--prompts-file", options.prompts_file,
                  "Draw every line of this text file instead of one prompt, --batch-size pictures "
                  "at once; each line may name adapters of its own (<lora:NAME:WEIGHT>) and is "
                  "drawn as it would be alone; - is standard input")
      ->type_name("FILE")
      ->excludes(prompt);
  const CLI::Option* file = command.get_option("--prompts-file");
  command.parse_complete_callback([prompt, file] {
    if (prompt->empty() && file->empty()) throw CLI::RequiredError("prompt (or --prompts-file)");
  });
  command
      .add_option("--template", options.template_name,
                  "Preset of templates.json: its model, adapters and defaults")
      ->envname("LIMNER_TEMPLATE");
  command.add_option("--templates", options.templates,
                     "File of templates; default: $LIMNER_TEMPLATES, else ./templates.json");
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
  add_prompt_options(command, options);
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
  add_lora_options(command, options.loras);
  add_model_options(command, options.place);
  command.footer(
      "Example:\n  limner generate \"a red circle above a blue square on a white background\" "
      "--seed 1 "
      "--output circle.png\n"
      "  limner generate \"a (red:1.3) circle AND a [blue|green] square:0.8\" --negative-prompt "
      "blurry\n"
      "  limner generate --prompts-file prompts.txt --batch-size 4 --seed 7 --output {index}.png");
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
