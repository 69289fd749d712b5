// `limner volume setup`, `check` and `upload`: a worker's network volume.
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/volume_setup.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"
#include "runpod/volume/check.h"
#include "runpod/volume/target.h"
#include "runpod/volume/upload.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using nlohmann::json;

// A bar of bytes that begins where the first call stands.
class ByteBar {
 public:
  ByteBar(const Console& console, std::string label) : console_(console), label_(label) {}
  void operator()(std::uint64_t done, std::uint64_t total) {
    const auto signed_done = static_cast<std::int64_t>(done);
    if (!bar_) {
      bar_.emplace(console_, label_, static_cast<std::int64_t>(total), ProgressBar::Unit::kBytes,
                   signed_done);
    }
    bar_->update(signed_done);
  }
  void finish() {
    if (bar_) bar_->finish();
  }

 private:
  const Console& console_;
  const std::string label_;
  std::optional<ProgressBar> bar_;
};

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// ---- setup

void add_setup(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "setup", "Download, convert and check what belongs on a volume, into a folder");
  auto options = std::make_shared<VolumeSetupOptions>();
  command->add_option("--volume", options->volume, "The folder")->capture_default_str();
  command
      ->add_option("--model", options->models,
                   "A hub repository, a Civitai link or a URL, with #sha256=HEX if you like; "
                   "repeatable")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--lora", options->loras, "An adapter, the same way; repeatable")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--templates", options->templates,
                      "A file of templates: builds them, as `limner template build` does");
  command->add_option("--variant", options->variant,
                      "Of repositories: take NAME.VARIANT.safetensors files, e.g. fp16");
  command->add_flag("--convert", options->convert,
                    "Make single-file models into diffusers folders in float16, variant fp16");
  add_console_options(*command, context);
  command->footer(
      "What lies in the folder already is taken in, too. limner-volume.json is written last; "
      "called "
      "again,\nset-up goes on where it stopped.\n\nExample:\n  limner volume setup --volume volume "
      "--model owner/name --variant fp16 --lora https://example.com/style.safetensors");
  command->callback(
      [options, &context] { context.exit_code = volume_setup(*options, context.console()); });
}

// ---- check

struct CheckOptions {
  fs::path volume = "/runpod-volume";
  bool quick = false;
};

json to_json(const std::vector<runpod::Finding>& findings) {
  json list = json::array();
  for (const runpod::Finding& finding : findings) {
    list.push_back({{"kind", runpod::name(finding.kind)},
                    {"path", finding.path},
                    {"message", finding.message},
                    {"advice", finding.advice}});
  }
  return list;
}

void print(const CheckOptions& options, const runpod::VolumeReport& report,
           const Console& console) {
  if (console.json()) {
    console.result(dump({{"volume", options.volume.string()},
                         {"ok", report.problems.empty()},
                         {"quick", options.quick},
                         {"files", report.files},
                         {"bytes", report.bytes},
                         {"problems", to_json(report.problems)},
                         {"notes", to_json(report.notes)}}));
    return;
  }
  const auto say = [&](const char* what, const runpod::Finding& finding) {
    console.result(fmt::format("{}: {} {}. {}", what,
                               finding.path.empty() ? options.volume.string() : finding.path,
                               finding.message, finding.advice));
  };
  for (const runpod::Finding& finding : report.problems) say("problem", finding);
  for (const runpod::Finding& finding : report.notes) say("note", finding);
  if (!report.problems.empty()) return;
  console.result(fmt::format("{}: {} files, {}, {}", options.volume.string(), report.files,
                             human_bytes(report.bytes),
                             options.quick ? "all there in their sizes (--quick read no hashes)"
                                           : "all as limner-volume.json says"));
}

int check(const CheckOptions& options, const Console& console) {
  const InterruptGuard interrupts;
  ByteBar bar(console, "checking");
  runpod::CheckRequest request;
  request.volume = options.volume;
  request.quick = options.quick;
  request.image_folders = {"/app/models"};
  request.mounts = runpod::mounts_of_this_process();
  request.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (InterruptGuard::requested()) throw Failure(ErrorCode::kCancelled, "interrupted");
    bar(done, total);
  };
  const auto report = runpod::check_volume(request);
  bar.finish();
  if (!report.ok()) return console.fail(report.error());
  print(options, *report, console);
  return report->problems.empty() ? 0 : 1;
}

void add_check(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "check", "What is missing, misplaced, half-written or hidden on a volume, and what to do");
  auto options = std::make_shared<CheckOptions>();
  command->add_option("--volume", options->volume, "Where it is mounted, or its folder at home")
      ->capture_default_str();
  command->add_flag("--quick", options->quick, "Sizes and headers alone: reads no file whole");
  add_console_options(*command, context);
  command->footer(
      "Exit code 0 only when nothing is wrong.\n\nExample:\n  limner volume check "
      "--volume volume --quick");
  command->callback(
      [options, &context] { context.exit_code = check(*options, context.console()); });
}

// ---- upload

struct UploadOptions {
  fs::path volume = "volume", env_file;
  std::string bucket, endpoint, region, prefix;
  bool dry_run = false, remove_others = false;
};

delivery::S3Options s3_options(const UploadOptions& options) {
  runpod::TargetRequest target;
  target.bucket = options.bucket;
  target.endpoint = options.endpoint;
  target.region = options.region;
  target.env_file = options.env_file;
  target.environment = [](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return std::string(value == nullptr ? "" : value);
  };
  delivery::S3Options s3 = runpod::upload_target(target).value_or_throw();
  // A part may take minutes on a home's line, and a volume's server may be away for a while.
  s3.retries.attempts = 8;
  s3.retries.max_delay = 15s;
  s3.retries.timeout = 5min;
  s3.retries.deadline = 20min;
  return s3;
}

std::string key_prefix(std::string given) {
  while (given.starts_with('/')) given.erase(0, 1);
  while (given.ends_with('/')) given.pop_back();
  return given.empty() ? "" : given + '/';
}

void print(const UploadOptions& options, const runpod::UploadReport& report,
           const Console& console) {
  if (console.json()) {
    console.result(dump({{"dry_run", options.dry_run},
                         {"changed", report.changed},
                         {"changed_bytes", report.changed_bytes},
                         {"unchanged", report.unchanged},
                         {"removed", report.removed},
                         {"sent_parts", report.sent.parts},
                         {"sent_bytes", report.sent.bytes},
                         {"kept_parts", report.sent.kept_parts},
                         {"kept_bytes", report.sent.kept_bytes}}));
    return;
  }
  const char* would = options.dry_run ? "would be " : "";
  for (const std::string& path : report.changed)
    console.result(fmt::format("{}sent: {}", would, path));
  for (const std::string& key : report.removed)
    console.result(fmt::format("{}removed: {}", would, key));
  console.result(fmt::format("{} file{} {}sent ({}), {} there already{}", report.changed.size(),
                             report.changed.size() == 1 ? "" : "s", would,
                             human_bytes(report.changed_bytes), report.unchanged,
                             report.sent.kept_bytes == 0
                                 ? ""
                                 : fmt::format("; {} of it came with an earlier run",
                                               human_bytes(report.sent.kept_bytes))));
}

int upload(const UploadOptions& options, const Console& console) {
  const InterruptGuard interrupts;
  std::stop_source stop;
  const std::jthread watch([&](const std::stop_token& ended) {
    while (!ended.stop_requested() && !InterruptGuard::requested())
      std::this_thread::sleep_for(50ms);
    if (InterruptGuard::requested()) stop.request_stop();
  });
  try {
    const delivery::S3Options s3 = s3_options(options);
    platform::http::WebExchange exchange(platform::http::trusted_network());
    const platform::SystemClock clock;
    const auto client = delivery::S3Client::make(s3, exchange, clock).value_or_throw();
    ByteBar comparing(console, "comparing"), sending(console, "sending");
    runpod::UploadRequest request;
    request.volume = options.volume;
    request.target = s3.endpoint + '/' + s3.bucket;
    request.prefix = key_prefix(options.prefix);
    request.dry_run = options.dry_run;
    request.remove_others = options.remove_others;
    request.comparing = std::ref(comparing);
    request.send.progress = [&](std::uint64_t done, std::uint64_t total) {
      comparing.finish();
      sending(done, total);
    };
    request.send.stop = stop.get_token();
    const auto report = runpod::upload_volume(request, *client);
    comparing.finish();
    sending.finish();
    if (!report.ok()) return console.fail(report.error());
    print(options, *report, console);
    return 0;
  } catch (const Failure& failure) {
    return console.fail(failure.error());
  }
}

void add_upload(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand(
      "upload", "Bring a volume's folder to its S3 storage, what changed alone");
  auto options = std::make_shared<UploadOptions>();
  command->add_option("--volume", options->volume, "The folder that `volume setup` made")
      ->capture_default_str();
  command->add_option("--bucket", options->bucket, "The volume's id; default: $RUNPOD_VOLUME_ID");
  command->add_option("--endpoint", options->endpoint,
                      "Of its S3 storage; default: $RUNPOD_S3_ENDPOINT, else that of the region");
  command->add_option("--region", options->region,
                      "The data centre, such as EU-RO-1; default: $RUNPOD_S3_REGION");
  command->add_option("--prefix", options->prefix, "Folder on the volume to put it in");
  command->add_flag("--dry-run", options->dry_run, "Say what would be sent, and send nothing");
  command->add_flag(
      "--delete", options->remove_others,
      "Remove what the volume's models/, loras/, embeddings/ and controlnets/ have and "
      "the folder has not");
  command->add_option("--env-file", options->env_file,
                      "File of variables, below those of the environment; default: .env");
  add_console_options(*command, context);
  command->footer(
      "Keys come from RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY (or AWS_ACCESS_KEY_ID and\n"
      "AWS_SECRET_ACCESS_KEY), set in the environment or the file. Called again, it sends what is "
      "still\nmissing.\n\nExample:\n  limner volume upload --volume volume --bucket abc123xyz0 "
      "--region EU-RO-1");
  command->callback(
      [options, &context] { context.exit_code = upload(*options, context.console()); });
}

}  // namespace

void add_volume_commands(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("volume", "Fill, check and upload a worker's network volume");
  command->require_subcommand(1);
  command->footer("Example:\n  limner volume check --volume volume");
  add_setup(*command, context);
  add_check(*command, context);
  add_upload(*command, context);
}

}  // namespace limner::cli
