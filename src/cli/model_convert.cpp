#include "cli/model_convert.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/engine_loader.h"
#include "cli/model_commands.h"
#include "cli/model_paths.h"
#include "engine/weights/checkpoint/convert.h"
#include "engine/weights/checkpoint/verify.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
namespace weights = engine::weights;

bool names_single_file(const fs::path& path) {
  return path.extension() == ".safetensors";
}

void report(const ConvertArguments& asked, const weights::WriteReport& done,
            const Console& console) {
  if (console.json()) {
    console.result(nlohmann::json{{"output", asked.output},
                                  {"tensors", done.tensors},
                                  {"bytes", done.bytes},
                                  {"kept", done.kept},
                                  {"kept_bytes", done.kept_bytes}}
                       .dump());
    return;
  }
  if (done.kept_bytes > 0)
    console.note(fmt::format("{}: {} kept from the interrupted run", asked.output,
                             human_bytes(done.kept_bytes)));
  for (const std::string& file : done.kept)
    console.note(fmt::format("{}: kept from the interrupted run", file));
  console.result(asked.output);
}

}  // namespace

Result<weights::WriteReport> convert(ConvertArguments asked, const Console& console) {
  const auto folders = model_folders();
  const auto input = resolve_model(asked.input, folders);
  if (!input.ok()) return input.error();
  std::error_code ignored;
  const bool from_file = fs::is_regular_file(*input, ignored);
  const bool to_file = names_single_file(asked.output);
  if (from_file && to_file) {
    return Error{ErrorCode::kInvalidArgument,
                 "both ends are single files; name a folder to convert to"};
  }
  if (to_file && !asked.write.variant.empty()) {
    return Error{ErrorCode::kInvalidArgument, "a single file has no variants; leave --variant out"};
  }
  asked.read.tokenizer = resolve_tokenizer(asked.tokenizer, folders);
  const auto model = weights::read_model(*input, asked.read);
  if (!model.ok()) return model.error();
  asked.write.output = asked.output;
  asked.write.inputs = {{.role = "model", .path = *input, .scale = 1.0}};
  std::unique_ptr<ProgressBar> bar;
  asked.write.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (!bar) {
      bar = std::make_unique<ProgressBar>(console, "converting", static_cast<std::int64_t>(total),
                                          ProgressBar::Unit::kBytes);
    }
    bar->update(static_cast<std::int64_t>(done));
  };
  return to_file ? weights::write_single_file(*model, asked.write)
                 : weights::write_folder(*model, asked.write);
}

CLI::Option* add_written_dtype(CLI::App& command, std::optional<weights::DType>& dtype) {
  return command
      .add_option_function<std::string>(
          "--dtype",
          [&dtype](const std::string& name) {
            dtype = name == "float16"    ? weights::DType::kF16
                    : name == "bfloat16" ? weights::DType::kBF16
                                         : weights::DType::kF32;
          },
          "Write numbers as float16, bfloat16 or float32; default: as they are")
      ->check(CLI::IsMember({"float16", "bfloat16", "float32"}));
}

void add_convert(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "convert", "Single file to diffusers folder, or a folder to a single file");
  auto asked = std::make_shared<ConvertArguments>();
  command->add_option("input", asked->input, "A .safetensors checkpoint, a folder or a name")
      ->required();
  command->add_option("output", asked->output, "A folder, or FILE.safetensors")->required();
  add_written_dtype(*command, asked->write.dtype);
  command->add_option("--variant", asked->write.variant,
                      "Name the weights NAME.VARIANT.safetensors, e.g. fp16");
  command->add_option("--source-variant", asked->write.source_variant,
                      "Which variant of a folder to read");
  command
      ->add_option("--tokenizer", asked->tokenizer,
                   "Folder with CLIP's vocab.json and merges.txt, for models that come without")
      ->envname("LIMNER_TOKENIZER");
  command
      ->add_option("--prediction", asked->read.prediction,
                   "What the network predicts, where the file does not say")
      ->check(CLI::IsMember({"epsilon", "v_prediction"}));
  command->add_flag("--ema", asked->read.ema, "Take the averaged weights of a training checkpoint");
  add_console_options(*command, context);
  command->footer(
      "Example:\n  limner model convert checkpoint.safetensors checkpoint-df --dtype float16 "
      "--variant fp16");
  command->callback([asked, &context] {
    const Console console = context.console();
    const auto done = convert(*asked, console);
    if (done.ok()) return report(*asked, *done, console);
    context.exit_code = console.fail(done.error());
  });
}

void add_merge(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "merge", "Adapters into a model, or several models into one, as a new folder");
  auto asked = std::make_shared<MergeOptions>();
  command->add_option("places", asked->places, "MODEL OUT with --lora, else OUT")
      ->required()
      ->expected(1, 2);
  command
      ->add_option("--lora", asked->loras,
                   "Adapter to merge: FILE:SCALE, or FILE:unet=..,te=..; repeatable, in order")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--lora-allow-partial", asked->lora_allow_partial,
                    "Merge an adapter that has layers the model does not");
  command->add_option("--blend", asked->blend, "Weighted sum: MODEL=WEIGHT MODEL=WEIGHT ...");
  command->add_option("--add-difference", asked->difference, "A B C: A + alpha (B - C)")
      ->expected(3);
  command->add_option("--alpha", asked->alpha, "Of --add-difference")->capture_default_str();
  add_written_dtype(*command, asked->dtype);
  command->add_option("--variant", asked->variant,
                      "Name the weights NAME.VARIANT.safetensors, e.g. fp16");
  command
      ->add_option("--tokenizer", asked->tokenizer,
                   "Folder with CLIP's vocab.json and merges.txt, for models that come without")
      ->envname("LIMNER_TOKENIZER");
  command
      ->add_option("--prediction", asked->prediction,
                   "What the network predicts, where the model does not say")
      ->check(CLI::IsMember({"epsilon", "v_prediction"}));
  add_console_options(*command, context);
  command->footer(
      "Examples:\n  limner model merge sdxl merged-df --lora style.safetensors:0.8 --lora "
      "detail.safetensors:1.5\n  limner model merge blended-df --blend one=0.7 two=0.3");
  command->callback([asked, &context] {
    const Console console = context.console();
    const auto engine = load_engine();
    context.exit_code =
        engine.ok() ? (*engine)->merge(*asked, console) : console.fail(engine.error());
  });
}

void add_verify(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "verify", "Whether all numbers are finite and all files as the manifest says");
  auto model = std::make_shared<std::string>();
  command->add_option("model", *model, "A name, a folder or a .safetensors file")->required();
  add_console_options(*command, context);
  command->footer("Example:\n  limner model verify miniature");
  command->callback([model, &context] {
    const Console console = context.console();
    const auto path = resolve_model(*model, model_folders());
    if (!path.ok()) {
      context.exit_code = console.fail(path.error());
      return;
    }
    const auto result = weights::verify(*path);
    if (!result.ok()) {
      context.exit_code = console.fail(result.error());
      return;
    }
    context.exit_code = result->problems.empty() ? 0 : 1;
    if (console.json()) {
      console.result(nlohmann::json{{"path", path->string()},
                                    {"manifest", result->has_manifest},
                                    {"tensors", result->tensors},
                                    {"files", result->files},
                                    {"problems", result->problems}}
                         .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      return;
    }
    for (const std::string& problem : result->problems) console.result("problem: " + problem);
    if (!result->problems.empty()) return;
    console.result(fmt::format("{}: {} tensors finite, {}", path->string(), result->tensors,
                               result->has_manifest
                                   ? fmt::format("{} files as the manifest says", result->files)
                                   : "no manifest to compare with"));
  });
}

}  // namespace limner::cli
