// `limner template list`, `show` and `build`.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/engine_loader.h"
#include "cli/model_commands.h"
#include "cli/template_paths.h"

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::Template;
using platform::Templates;

json to_json(const Template& made, bool is_default) {
  json loras = json::array();
  for (const platform::TemplateLora& lora : made.loras) {
    loras.push_back({{"name", lora.name},
                     {"url", lora.url},
                     {"filename", lora.filename},
                     {"scale", lora.scale}});
  }
  json defaults = json::object();
  const auto add = [&](const char* key, const auto& value) {
    if (value) defaults[key] = *value;
  };
  const auto add_text = [&](const char* key, const std::string& value) {
    if (!value.empty()) defaults[key] = value;
  };
  add("steps", made.defaults.steps);
  add("width", made.defaults.width);
  add("height", made.defaults.height);
  add("guidance_scale", made.defaults.guidance_scale);
  add_text("sampler", made.defaults.sampler);
  add_text("schedule", made.defaults.schedule);
  add_text("prompt_prefix", made.defaults.prompt_prefix);
  add_text("negative_prompt", made.defaults.negative_prompt);
  return {{"key", made.key},
          {"name", made.name},
          {"description", made.description},
          {"default", is_default},
          {"model_dir", made.model_dir()},
          {"checkpoint",
           {{"name", made.checkpoint.name},
            {"url", made.checkpoint.url},
            {"filename", made.checkpoint.filename},
            {"diffusers_dir", made.checkpoint.diffusers_dir}}},
          {"loras", loras},
          {"defaults", defaults}};
}

// A template's text may come from anywhere: broken UTF-8 is replaced, never printed raw.
std::string dump(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

void list(const Templates& templates, const Console& console) {
  if (console.json()) {
    json all = json::array();
    for (const auto& [key, made] : templates.by_key)
      all.push_back(to_json(made, key == templates.default_template));
    console.result(dump({{"file", templates.file.string()},
                         {"default_template", templates.default_template},
                         {"templates", all}},
                        -1));
    return;
  }
  for (const auto& [key, made] : templates.by_key) {
    console.result(fmt::format("{:<24}{:<28}{} adapter{}  {}{}", key, made.checkpoint.filename,
                               made.loras.size(), made.loras.size() == 1 ? "" : "s", made.name,
                               key == templates.default_template ? "  (default)" : ""));
  }
}

void add_file_option(CLI::App& command, std::string& file) {
  command.add_option("--file", file,
                     "File of templates; default: $LIMNER_TEMPLATES, else ./templates.json");
}

void add_list(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("list", "The templates of a file");
  auto file = std::make_shared<std::string>();
  add_file_option(*command, *file);
  add_console_options(*command, context);
  command->footer("Example:\n  limner template list --file templates.json");
  command->callback([file, &context] {
    const Console console = context.console();
    const auto templates = platform::read_templates(templates_file(*file));
    if (templates.ok()) return list(*templates, console);
    context.exit_code = console.fail(templates.error());
  });
}

void add_show(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("show", "One template, with everything it sets");
  auto file = std::make_shared<std::string>();
  auto key = std::make_shared<std::string>();
  command->add_option("template", *key, "Its key; default: the file's default template");
  add_file_option(*command, *file);
  add_console_options(*command, context);
  command->footer("Example:\n  limner template show portrait --file templates.json");
  command->callback([file, key, &context] {
    const Console console = context.console();
    const auto templates = platform::read_templates(templates_file(*file));
    const auto chosen =
        templates.ok() ? templates->find(*key) : Result<Template>(templates.error());
    if (!chosen.ok()) {
      context.exit_code = console.fail(chosen.error());
      return;
    }
    console.result(dump(to_json(*chosen, chosen->key == templates->default_template),
                        console.json() ? -1 : 2));
  });
}

void add_build(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "build", "Download, convert, merge and check what a file of templates names");
  auto asked = std::make_shared<TemplateBuildOptions>();
  add_file_option(*command, asked->file);
  command->add_option("--out", asked->out, "Folder for the models")->required();
  command->add_option("--volume", asked->volume,
                      "Folder that outlives this machine: looked in first, copied to at the end");
  command->add_option("--jobs", asked->jobs, "Downloads, conversions and merges at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  add_written_dtype(*command, asked->dtype);
  command
      ->add_option("--variant", asked->variant,
                   "Name the weights NAME.VARIANT.safetensors; '' for no variant")
      ->capture_default_str();
  command
      ->add_option("--tokenizer", asked->tokenizer,
                   "Folder with CLIP's vocab.json and merges.txt, for checkpoints without")
      ->envname("LIMNER_TOKENIZER");
  add_console_options(*command, context);
  command->footer("Example:\n  limner template build --file templates.json --out models --jobs 4");
  command->callback([asked, &context] {
    const Console console = context.console();
    asked->file = templates_file(asked->file).string();
    const auto engine = load_engine();
    context.exit_code =
        engine.ok() ? (*engine)->template_build(*asked, console) : console.fail(engine.error());
  });
}

}  // namespace

void add_template_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("template", "List, show and build templates");
  command->require_subcommand(1);
  command->footer("Example:\n  limner template list");
  add_list(*command, context);
  add_show(*command, context);
  add_build(*command, context);
}

}  // namespace limner::cli
