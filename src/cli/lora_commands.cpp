// `limner lora list` and `limner lora inspect`.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/lora_paths.h"
#include "engine/lora/inspect.h"

namespace limner::cli {
namespace {

using engine::lora::AdapterInspection;

// "LoRA 192, full difference 2"
template <typename Key>
std::string counts(const std::map<Key, std::size_t>& map) {
  std::string text;
  for (const auto& [key, count] : map) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", key, count);
  }
  return text;
}

template <typename Key>
nlohmann::json counts_json(const std::map<Key, std::size_t>& map) {
  nlohmann::json object = nlohmann::json::object();
  for (const auto& [key, count] : map) object[fmt::format("{}", key)] = count;
  return object;
}

nlohmann::json to_json(const AdapterInspection& adapter) {
  nlohmann::json tags = nlohmann::json::array();
  for (const auto& [tag, count] : adapter.tags) tags.push_back({{"tag", tag}, {"count", count}});
  return {
      {"path", adapter.path.string()},
      {"name", engine::lora::adapter_name(adapter.path)},
      {"kinds", counts_json(adapter.kinds)},
      {"family", adapter.family.empty() ? nlohmann::json(nullptr) : nlohmann::json(adapter.family)},
      {"components", counts_json(adapter.components)},
      {"ranks", counts_json(adapter.ranks)},
      {"alphas", counts_json(adapter.alphas)},
      {"dtypes", adapter.dtypes},
      {"unknown_keys", adapter.unknown_keys},
      {"trigger", adapter.trigger},
      {"tags", tags},
      {"metadata", adapter.metadata},
      {"bytes", adapter.bytes},
      {"sha256", adapter.sha256},
      {"short_hash", adapter.short_hash}};
}

void print(const AdapterInspection& adapter, const Console& console) {
  const auto line = [&](const char* label, const std::string& text) {
    if (!text.empty()) console.result(fmt::format("  {:<12}{}", label, text));
  };
  console.result(adapter.path.string());
  line("kind", counts(adapter.kinds));
  line("family", adapter.family.empty() ? "not told by its shapes" : adapter.family);
  line("components", counts(adapter.components));
  line("rank", counts(adapter.ranks));
  line("alpha", counts(adapter.alphas));
  if (adapter.without_alpha > 0) {
    line("", fmt::format("{} modules without alpha: their scale is 1", adapter.without_alpha));
  }
  line("stored as",
       fmt::format("{}, {}", fmt::join(adapter.dtypes, ", "), human_bytes(adapter.bytes)));
  line("trigger", adapter.trigger);
  constexpr std::size_t kShown = 12;
  std::string tags;
  for (std::size_t i = 0; i < std::min(kShown, adapter.tags.size()); ++i) {
    tags +=
        fmt::format("{}{} ({})", i == 0 ? "" : ", ", adapter.tags[i].first, adapter.tags[i].second);
  }
  line("trained on", tags);
  line("sha256", adapter.sha256);
  line("short hash", adapter.short_hash);
  for (const auto& [key, value] : adapter.metadata) {
    if (key != "ss_tag_frequency") console.result(fmt::format("    {} = {}", key, value));
  }
  for (const std::string& key : adapter.unknown_keys) {
    console.result(fmt::format("  unknown tensor: {}", key));
  }
}

void add_inspect(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "inspect", "What kind of adapter a file is, which models it fits and what it was trained on");
  auto adapter = std::make_shared<std::string>();
  auto folders = std::make_shared<std::vector<std::string>>();
  command->add_option("file", *adapter, "A .safetensors file, or a name")->required();
  command->add_option("--loras", *folders, "Folder to look for names in; repeatable")
      ->allow_extra_args(false)
      ->check(CLI::ExistingDirectory);
  add_console_options(*command, context);
  command->footer("Example:\n  limner lora inspect loras/style.safetensors --json");
  command->callback([adapter, folders, &context] {
    const Console console = context.console();
    const auto file = lora_folders(*folders).find_path_or_name(*adapter);
    if (!file.ok()) {
      context.exit_code = console.fail(file.error());
      return;
    }
    const auto inspection = engine::lora::inspect_adapter(*file);
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
  });
}

void add_list(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("list", "The adapters that can be named");
  auto folders = std::make_shared<std::vector<std::string>>();
  command->add_option("--loras", *folders, "Folder to look in before the usual ones; repeatable")
      ->allow_extra_args(false)
      ->check(CLI::ExistingDirectory);
  add_console_options(*command, context);
  command->footer("Example:\n  limner lora list");
  command->callback([folders, &context] {
    const Console console = context.console();
    nlohmann::json list = nlohmann::json::array();
    for (const auto& adapter : lora_folders(*folders).list()) {
      if (console.json()) {
        list.push_back(
            {{"name", adapter.name}, {"path", adapter.file.string()}, {"bytes", adapter.bytes}});
      } else {
        console.result(fmt::format("{:<32}{:>10}  {}", adapter.name, human_bytes(adapter.bytes),
                                   adapter.file.string()));
      }
    }
    if (console.json()) console.result(nlohmann::json{{"loras", list}}.dump());
  });
}

}  // namespace

void add_lora_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("lora", "List and inspect adapters: LoRA and its kin");
  command->require_subcommand(1);
  command->footer("Example:\n  limner lora inspect loras/style.safetensors");
  add_list(*command, context);
  add_inspect(*command, context);
}

}  // namespace limner::cli
