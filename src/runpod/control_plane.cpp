#include "runpod/control_plane.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <mutex>

#include "base/json.h"
#include "delivery/crypto.h"

namespace limner::runpod {
namespace {

using nlohmann::json;
using platform::http::Reply;
using platform::http::Request;
using std::chrono::milliseconds;

constexpr std::uint64_t kMostReply = std::uint64_t{64} << 20;
constexpr std::size_t kMostPingIds = std::size_t{64} << 10;  // bytes
constexpr std::size_t kMostReason = 256;
constexpr int kPingTries = 4;
constexpr milliseconds kUnhealthyWait{2'000};
constexpr std::string_view kTake = "/job-take/";

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
  return text;
}

std::string value(const Environment& environment, const char* name) {
  const auto found = environment.find(name);
  return found == environment.end() ? std::string() : found->second;
}

// Of a query: everything but what RFC 3986 leaves as it is.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string random_id() {
  std::string hex;
  for (const std::uint8_t byte : delivery::random_bytes(16)) hex += fmt::format("{:02x}", byte);
  for (const std::size_t place : {20, 16, 12, 8}) hex.insert(place, "-");
  return hex;
}

bool is_json(const Reply& reply) {
  return reply.status == 200 && !reply.body.empty() &&
         reply.header("content-type").find("application/json") != std::string_view::npos;
}

json parsed(const Reply& reply) {
  if (reply.cut) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[runpod] the platform's answer is over {} bytes", kMostReply));
  }
  return parse_json(reply.text(), {.bytes = kMostReply}).value_or_throw();
}

TakenJob read_job(const json& object) {
  const auto id = object.is_object() ? object.find("id") : object.end();
  if (!object.is_object() || id == object.end() || !id->is_string() ||
      id->get_ref<const std::string&>().empty()) {
    throw Failure(ErrorCode::kInvalidArgument, "[runpod] the platform sent a job without an id");
  }
  TakenJob job;
  job.id = id->get<std::string>();
  const auto input = object.find("input");
  if (input == object.end() || input->is_null()) {
    job.wrong = Error{ErrorCode::kInvalidArgument, "the job has no input"};
  } else {
    job.input = *input;
  }
  return job;
}

// One job that cannot be read must not cost the others of its batch.
void take_one(const json& object, Taken& taken) {
  try {
    taken.jobs.push_back(read_job(object));
  } catch (const Failure& failure) {
    taken.problem = failure.error();
  }
}

Error unexpected(std::string_view call, int status) {
  return {ErrorCode::kUnavailable,
          fmt::format("[runpod] the platform answered {} with HTTP {}", call, status), true};
}

bool may_pass(int status) {
  return status == 408 || status == 425 || status == 429 || status >= 500;
}

}  // namespace

Result<PlatformSettings> read_settings(const Environment& environment) {
  PlatformSettings settings;
  settings.get_job = value(environment, "RUNPOD_WEBHOOK_GET_JOB");
  settings.post_output = value(environment, "RUNPOD_WEBHOOK_POST_OUTPUT");
  settings.post_stream = value(environment, "RUNPOD_WEBHOOK_POST_STREAM");
  settings.ping = value(environment, "RUNPOD_WEBHOOK_PING");
  settings.api_key = value(environment, "RUNPOD_AI_API_KEY");
  settings.worker_id = value(environment, "RUNPOD_POD_ID");
  settings.named = !settings.worker_id.empty();
  if (!settings.named) settings.worker_id = random_id();
  settings.endpoint = !value(environment, "RUNPOD_ENDPOINT_ID").empty();
  const std::string host = value(environment, "RUNPOD_POD_HOSTNAME");
  if (!host.empty()) settings.hostname = host;
  const std::string interval = value(environment, "RUNPOD_PING_INTERVAL");
  if (!interval.empty()) {
    std::int64_t ms = 0;
    const auto read = std::from_chars(interval.data(), interval.data() + interval.size(), ms);
    if (read.ec != std::errc() || *read.ptr != '\0' || ms < 1000) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("RUNPOD_PING_INTERVAL must be milliseconds from 1000 on, got '{}'",
                               interval.substr(0, 40))};
    }
    settings.ping_interval = milliseconds(ms / 1000 * 1000);
  }
  // The key goes out as a header: what could end its line would begin another one.
  if (settings.api_key.find_first_of("\r\n") != std::string::npos) {
    return Error{ErrorCode::kInvalidArgument, "RUNPOD_AI_API_KEY must be one line"};
  }
  if (!settings.get_job.empty() && settings.post_output.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "RUNPOD_WEBHOOK_GET_JOB is set and RUNPOD_WEBHOOK_POST_OUTPUT is not: there is "
                 "nowhere to send results to"};
  }
  return settings;
}

ControlPlane::ControlPlane(PlatformSettings settings, Waits waits,
                           platform::http::Exchange& exchange)
    : settings_(std::move(settings)), waits_(waits), exchange_(exchange) {}

std::vector<std::string> ControlPlane::headers() const {
  std::vector<std::string> lines = {"User-Agent: limner/" LIMNER_VERSION};
  if (!settings_.api_key.empty()) lines.push_back("Authorization: " + settings_.api_key);
  return lines;
}

Result<Reply> ControlPlane::get(const std::string& url, milliseconds timeout,
                                std::stop_token stop) {
  auto parsed_url = platform::http::parse_url(url);
  if (!parsed_url.ok()) return parsed_url.error();
  Request request;
  request.url = std::move(*parsed_url);
  request.headers = headers();
  request.headers.emplace_back("Content-Type: application/json");
  request.max_reply = kMostReply;
  request.timeout = timeout;
  request.stop = std::move(stop);
  return exchange_.send(request);
}

Result<Taken> ControlPlane::take(std::size_t free_slots, bool in_progress, std::stop_token stop) {
  std::string url = replaced(settings_.get_job, "$RUNPOD_POD_ID", settings_.worker_id);
  url = replaced(std::move(url), "$ID", settings_.worker_id);
  if (free_slots > 1) {
    url = replaced(std::move(url), kTake, "/job-take-batch/");
    url += fmt::format("&batch_size={}", free_slots);
  }
  url += fmt::format("&job_in_progress={}", in_progress ? 1 : 0);
  const auto reply = get(url, waits_.poll, std::move(stop));
  if (!reply.ok()) return reply.error();
  Taken taken;
  if (reply->status == 204 || reply->status == 400) return taken;
  if (reply->status == 429) {
    taken.wait = waits_.busy;
    return taken;
  }
  if (reply->status != 200) return unexpected("the request for a job", reply->status);
  if (!is_json(*reply)) return taken;
  try {
    const json answer = parsed(*reply);
    if (!answer.is_array()) {
      taken.jobs.push_back(read_job(answer));
      return taken;
    }
    for (const json& object : answer) take_one(object, taken);
    if (taken.jobs.empty() && taken.problem) return *taken.problem;
    return taken;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

// ---- what goes out

Delivery ControlPlane::post(const std::string& url, const std::string& job, const std::string& body,
                            std::stop_token stop) {
  std::string place = replaced(url, "$RUNPOD_POD_ID", settings_.worker_id);
  auto target = platform::http::parse_url(replaced(std::move(place), "$ID", escaped(job)));
  if (!target.ok()) return Delivery::kRefused;
  Request request;
  request.method = "POST";
  request.url = std::move(*target);
  request.headers = headers();
  request.headers.emplace_back("charset: utf-8");
  // It is JSON, and the platform wants it so.
  request.headers.emplace_back("Content-Type: application/x-www-form-urlencoded");
  if (job.find_first_of("\r\n") == std::string::npos) {
    request.headers.push_back("X-Request-ID: " + job);
  }
  request.body = delivery::bytes_of(body);
  request.timeout = waits_.answer;
  request.stop = std::move(stop);
  const auto reply = exchange_.send(request);
  if (!reply.ok()) return Delivery::kLater;
  if (reply->status >= 200 && reply->status < 300) return Delivery::kDelivered;
  if (reply->status == 404 || reply->status == 410) return Delivery::kGone;
  // A key that is not taken says nothing about this text.
  const bool key = reply->status == 401 || reply->status == 403;
  return key || may_pass(reply->status) ? Delivery::kLater : Delivery::kRefused;
}

Delivery ControlPlane::send_result(const std::string& job, const std::string& body, bool streamed,
                                   std::stop_token stop) {
  const char* query = streamed ? "&isStream=true" : "&isStream=false";
  return post(settings_.post_output + query, job, body, std::move(stop));
}

Delivery ControlPlane::send_partial(const std::string& job, const std::string& body,
                                    std::stop_token stop) {
  return post(settings_.post_stream + "&isStream=false", job, body, std::move(stop));
}

Delivery ControlPlane::send_progress(const std::string& job, const json& progress,
                                     std::stop_token stop) {
  const json body = {{"status", "IN_PROGRESS"}, {"output", progress}};
  return post(settings_.post_output + "&isStream=false", job, body.dump(), std::move(stop));
}

// ---- signs of life

bool ControlPlane::has_heartbeat() const {
  return settings_.named && !settings_.api_key.empty() && !settings_.ping.empty();
}

std::string ControlPlane::ping_url(const std::string& query) const {
  std::string url = replaced(settings_.ping, "$RUNPOD_POD_ID", settings_.worker_id);
  const char joint = url.find('?') == std::string::npos ? '?' : '&';
  return url + joint + query + "runpod_version=limner-" LIMNER_VERSION;
}

bool ControlPlane::ping(const std::vector<std::string>& jobs, std::stop_token stop) {
  std::string ids;
  for (const std::string& job : jobs) {
    if (ids.size() + job.size() + 1 > kMostPingIds) break;
    ids += (ids.empty() ? "" : ",") + job;
  }
  const std::string url = ping_url(ids.empty() ? "" : fmt::format("job_id={}&", escaped(ids)));
  std::mutex mutex;
  std::condition_variable_any never;
  for (int attempt = 1;; ++attempt) {
    const auto reply = get(url, 2 * settings_.ping_interval, stop);
    if (reply.ok() && reply->status < 400) return true;
    const bool again = !reply.ok() || may_pass(reply->status);
    if (!again || attempt == kPingTries) return false;
    std::unique_lock lock(mutex);
    if (stop.stop_requested()) return false;
    never.wait_for(lock, stop, milliseconds(500 << attempt), [] { return false; });
  }
}

void ControlPlane::report_unhealthy(const std::string& check, const std::string& reason) {
  if (!has_heartbeat()) return;
  const std::string query = fmt::format("status=unhealthy&check={}&reason={}&", escaped(check),
                                        escaped(reason.substr(0, kMostReason)));
  // Whether it is heard changes nothing: this worker ends.
  (void)get(ping_url(query), kUnhealthyWait, {});
}

// ---- jobs that clients cancel

bool ControlPlane::can_stop_jobs() const {
  return settings_.get_job.find(kTake) != std::string::npos;
}

Result<ToStop> ControlPlane::jobs_to_stop(std::stop_token stop) {
  std::string url = replaced(settings_.get_job, kTake, "/job-stop/");
  url = replaced(std::move(url), "$RUNPOD_POD_ID", settings_.worker_id);
  const auto reply =
      get(replaced(std::move(url), "$ID", settings_.worker_id), waits_.poll, std::move(stop));
  if (!reply.ok()) return reply.error();
  ToStop found;
  if (reply->status == 204) return found;
  if (reply->status == 429) {
    found.wait = waits_.busy;
    return found;
  }
  if (reply->status != 200) return unexpected("the request for jobs to stop", reply->status);
  found.wait = waits_.failed;  // an empty answer at once must not become a storm of requests
  if (!is_json(*reply)) return found;
  try {
    const json answer = parsed(*reply);
    const auto ids = answer.is_object() ? answer.find("jobsToStop") : answer.end();
    if (!answer.is_object() || ids == answer.end() || !ids->is_array()) return found;
    for (const json& id : *ids) {
      if (id.is_string()) found.jobs.push_back(id.get<std::string>());
    }
    if (!found.jobs.empty()) found.wait = milliseconds(0);
    return found;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::runpod
