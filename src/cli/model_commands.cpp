// `limner model list` and `limner model inspect`.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/model_commands.h"
#include "cli/model_paths.h"
#include "engine/weights/inspect.h"

namespace limner::cli {
namespace {

using engine::weights::ComponentReport;
using engine::weights::FileReport;
using engine::weights::Inspection;
using engine::weights::TensorReport;

std::string human_count(std::uint64_t count) {
  if (count < 1'000'000) return fmt::format("{:.1f} k", static_cast<double>(count) / 1e3);
  if (count < 1'000'000'000) return fmt::format("{:.2f} M", static_cast<double>(count) / 1e6);
  return fmt::format("{:.2f} G", static_cast<double>(count) / 1e9);
}

nlohmann::json to_json(const std::vector<FileReport>& files) {
  nlohmann::json list = nlohmann::json::array();
  for (const FileReport& file : files) {
    list.push_back({{"path", file.path}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  return list;
}

nlohmann::json to_json(const Inspection& model) {
  nlohmann::json body = {
      {"path", model.path.string()},
      {"family", model.family},
      {"pipeline", model.pipeline_class},
      {"diffusers_version", model.diffusers_version},
      {"parameters", model.parameters},
      {"bytes", model.bytes},
      {"sha256", model.sha256},
      {"files", to_json(model.files)},
      {"components", nlohmann::json::array()},
      {"not_a_model",
       model.not_a_model.empty() ? nlohmann::json(nullptr) : nlohmann::json(model.not_a_model)},
      {"problems", model.problems}};
  for (const ComponentReport& component : model.components) {
    body["components"].push_back({{"name", component.name},
                                  {"library", component.library},
                                  {"class", component.class_name},
                                  {"config", component.config},
                                  {"variants", component.variants},
                                  {"parameters_by_dtype", component.parameters_by_dtype},
                                  {"tensors", component.tensors},
                                  {"parameters", component.parameters},
                                  {"bytes", component.bytes},
                                  {"files", to_json(component.files)}});
  }
  for (const auto& tensor : model.tensors) {
    body["tensors"].push_back(
        {{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
  }
  return body;
}

void print(const Inspection& model, const Console& console) {
  console.result(fmt::format(
      "{}\n  family      {}{}{}", model.path.string(), model.family,
      model.pipeline_class.empty() ? "" : " (" + model.pipeline_class + ")",
      model.diffusers_version.empty() ? "" : ", written by diffusers " + model.diffusers_version));
  console.result(
      fmt::format("  parameters  {}, {}", human_count(model.parameters), human_bytes(model.bytes)));
  if (!model.sha256.empty()) console.result("  sha256      " + model.sha256);
  for (const ComponentReport& component : model.components) {
    std::string dtypes;
    for (const auto& [dtype, count] : component.parameters_by_dtype) {
      dtypes += (dtypes.empty() ? "" : ", ") + dtype;
    }
    const std::string name = component.name.empty() ? "tensors" : component.name;
    if (component.tensors == 0) {
      console.result(fmt::format("  {:<18}{}", name, component.class_name));
      continue;
    }
    console.result(fmt::format("  {:<18}{:<30}{:>10}  {:>10}  {}", name, component.class_name,
                               human_count(component.parameters), human_bytes(component.bytes),
                               dtypes));
  }
  // A checkpoint's components say enough; other files of tensors are shown in full.
  for (const auto& tensor :
       model.not_a_model.empty() ? std::vector<TensorReport>{} : model.tensors) {
    console.result(
        fmt::format("    {:<6}[{}]  {}", tensor.dtype, fmt::join(tensor.shape, ", "), tensor.name));
  }
  if (!model.not_a_model.empty()) console.result("  not a model: " + model.not_a_model);
  for (const std::string& problem : model.problems) console.result("  problem: " + problem);
  console.result(model.problems.empty() ? "  nothing is wrong with it" : "");
}

void add_list(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("list", "The models that can be named");
  add_console_options(*command, context);
  command->footer("Example:\n  limner model list");
  command->callback([&context] {
    const Console console = context.console();
    const auto folders = model_folders();
    nlohmann::json list = nlohmann::json::array();
    for (const auto& folder : find_models(folders)) {
      const auto model = engine::weights::inspect(folder, {.hashes = false, .values = false});
      const std::string name = model_name(folder);
      if (console.json()) {
        list.push_back(
            {{"name", name},
             {"path", folder.string()},
             {"family", model.ok() ? model->family : "unknown"},
             {"bytes", model.ok() ? model->bytes : 0},
             {"problems",
              model.ok() ? model->problems : std::vector<std::string>{model.error().message}}});
      } else if (model.ok()) {
        console.result(fmt::format("{:<24}{:<12}{:>10}  {}{}", name, model->family,
                                   human_bytes(model->bytes), folder.string(),
                                   model->problems.empty() ? "" : "  (has problems)"));
      } else {
        console.result(fmt::format("{:<24}{}", name, model.error().message));
      }
    }
    if (console.json()) console.result(nlohmann::json{{"models", list}}.dump());
    if (!console.json() && find_models(folders).empty())
      console.note("no models found; see `limner doctor`");
  });
}

void add_inspect(CLI::App& parent, Context& context) {
  CLI::App* command =
      parent.add_subcommand("inspect", "What is in a model, and what is wrong with it");
  auto model = std::make_shared<std::string>();
  auto fast = std::make_shared<bool>(false);
  command->add_option("model", *model, "A name, a folder or a .safetensors file")->required();
  command->add_flag("--fast", *fast, "Read headers only: no hashes, no search for NaN");
  add_console_options(*command, context);
  command->footer("Example:\n  limner model inspect miniature");
  command->callback([model, fast, &context] {
    const Console console = context.console();
    const auto path = resolve_model(*model, model_folders());
    if (!path.ok()) {
      context.exit_code = console.fail(path.error());
      return;
    }
    const auto inspection = engine::weights::inspect(*path, {.hashes = !*fast, .values = !*fast});
    if (!inspection.ok()) {
      context.exit_code = console.fail(inspection.error());
      return;
    }
    if (console.json()) {
      console.result(
          to_json(*inspection).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      print(*inspection, console);
    }
    context.exit_code = inspection->problems.empty() ? 0 : 1;
  });
}

}  // namespace

void add_model_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("model", "List, inspect, convert and check models");
  command->require_subcommand(1);
  command->footer("Example:\n  limner model inspect miniature");
  add_list(*command, context);
  add_inspect(*command, context);
  add_convert(*command, context);
  add_merge(*command, context);
  add_pull(*command, context);
  add_verify(*command, context);
}

}  // namespace limner::cli
