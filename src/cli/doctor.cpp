// `limner doctor`: what this machine has and lacks, and what to do about it.
#include <fmt/format.h>
#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/system_memory.h"
#include "cli/commands.h"
#include "cli/engine_loader.h"
#include "cli/model_paths.h"
#include "image/encode.h"

namespace limner::cli {
namespace {

struct Finding {
  enum class Kind { kGood, kNote, kBad } kind;
  std::string what;    // "memory"
  std::string state;   // "20.1 GiB free"
  std::string advice;  // what to do; empty when nothing
};

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

Finding check_engine(nlohmann::json& report) {
  const auto engine = load_engine();
  if (!engine.ok())
    return {Finding::Kind::kBad, "engine", engine.error().message, "run script/build"};
  report["engine"] = nlohmann::json::parse((*engine)->device_report());
  return {
      Finding::Kind::kGood, "engine",
      fmt::format("libtorch {}, {} threads, {}", report["engine"]["libtorch"].get<std::string>(),
                  report["engine"]["threads"].get<int>(),
                  report["engine"]["cpu"]["capability"].get<std::string>()),
      ""};
}

Finding check_arithmetic(const nlohmann::json& report) {
  if (!report.contains("engine"))
    return {Finding::Kind::kBad, "arithmetic", "unknown without the engine", ""};
  if (report["engine"]["fast_bfloat16"].get<bool>()) {
    return {Finding::Kind::kGood, "arithmetic", "the CPU multiplies bfloat16 natively", ""};
  }
  return {
      Finding::Kind::kNote, "arithmetic",
      "the CPU has no bfloat16 instructions: bfloat16 and float16 weights are computed in float32",
      ""};
}

Finding check_cuda(const nlohmann::json& report) {
  if (report.contains("engine") && report["engine"]["cuda"]["available"].get<bool>()) {
    return {Finding::Kind::kGood, "cuda",
            fmt::format("{} devices", report["engine"]["cuda"]["devices"].get<int>()), ""};
  }
  std::error_code ignored;
  if (std::filesystem::exists("/proc/driver/nvidia/version", ignored)) {
    return {Finding::Kind::kNote, "cuda", "an NVIDIA driver is here, but this build has no CUDA",
            "build with `cmake --preset cuda` against a CUDA libtorch"};
  }
  return {Finding::Kind::kNote, "cuda", "no NVIDIA device: pictures are drawn on the CPU", ""};
}

Finding check_memory(nlohmann::json& report) {
  const std::uint64_t free = available_memory_bytes();
  report["memory"] = {{"available_bytes", free}};
  constexpr std::uint64_t kSmall = std::uint64_t{4} << 30;
  return {free < kSmall ? Finding::Kind::kNote : Finding::Kind::kGood, "memory",
          human_bytes(free) + " free",
          free < kSmall ? "SD 1.5 at 512x512 wants 4 GiB, SDXL at 1024x1024 12 GiB" : ""};
}

Finding check_models(nlohmann::json& report) {
  report["models"] = nlohmann::json::array();
  for (const auto& model : find_models(model_folders())) report["models"].push_back(model.string());
  const std::size_t count = report["models"].size();
  if (count > 0)
    return {Finding::Kind::kGood, "models",
            fmt::format("{} found; `limner model list` shows them", count), ""};
  return {Finding::Kind::kBad, "models", "none found",
          "put diffusers folders under ./models, or set LIMNER_MODELS"};
}

Finding check_formats(nlohmann::json& report) {
  const image::Bitmap dot{.width = 1, .height = 1, .pixels = {0, 0, 0}};
  std::string good, bad;
  for (const char* name : {"png", "jpeg", "webp", "avif"}) {
    const bool works =
        image::encode(dot, {.format = image::format_from_name(name).value(), .text = {}}).ok();
    report["formats"][name] = works;
    (works ? good : bad) +=
        (works ? (good.empty() ? "" : ", ") : (bad.empty() ? "" : ", ")) + std::string(name);
  }
  if (bad.empty()) return {Finding::Kind::kGood, "formats", good, ""};
  return {Finding::Kind::kNote, "formats", fmt::format("{}; not {}", good, bad),
          "install libvips-dev and build again"};
}

}  // namespace

void add_doctor_command(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("doctor", "What this machine has and lacks, and what to do about it");
  add_console_options(*command, context);
  command->footer("Example:\n  limner doctor");
  command->callback([&context] {
    const Console console = context.console();
    utsname system{};
    uname(&system);
    nlohmann::json report = {
        {"version", LIMNER_VERSION}, {"cpu", processor()}, {"system", system.release}};
    std::vector<Finding> findings;
    findings.push_back(
        {Finding::Kind::kGood, "processor",
         fmt::format("{}, {} cores", processor(), std::thread::hardware_concurrency()), ""});
    findings.push_back(check_engine(report));
    findings.push_back(check_arithmetic(report));
    findings.push_back(check_cuda(report));
    findings.push_back(check_memory(report));
    findings.push_back(check_models(report));
    findings.push_back(check_formats(report));

    bool well = true;
    for (const Finding& finding : findings) {
      const char* mark = finding.kind == Finding::Kind::kGood   ? "ok  "
                         : finding.kind == Finding::Kind::kNote ? "note"
                                                                : "BAD ";
      well = well && finding.kind != Finding::Kind::kBad;
      report["findings"].push_back({{"what", finding.what},
                                    {"state", finding.state},
                                    {"advice", finding.advice},
                                    {"good", finding.kind != Finding::Kind::kBad}});
      if (console.json()) continue;
      console.result(fmt::format("{}  {:<11} {}", mark, finding.what, finding.state));
      if (!finding.advice.empty())
        console.result(fmt::format("      {:<11} -> {}", "", finding.advice));
    }
    if (console.json()) console.result(report.dump());
    context.exit_code = well ? 0 : 1;
  });
}

}  // namespace limner::cli
