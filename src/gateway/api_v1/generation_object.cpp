#include "gateway/api_v1/generation_object.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cmath>

#include "delivery/crypto.h"

namespace limner::gateway::api_v1 {
namespace {

using contract::Job;
using contract::JobStatus;
using nlohmann::json;

constexpr std::int64_t kEtagPeriod = 600'000;  // milliseconds

std::string signed_url(const std::string& key, const Showing& showing) {
  const auto parsed = delivery::parse_object_key(key).value_or_throw();
  return showing.artifacts.sign({.key = parsed, .lifetime = showing.url_lifetime}).value_or_throw();
}

json stored_image(const contract::StoredImage& image, const Showing& showing) {
  return {{"url", signed_url(image.key, showing)},
          {"url_expires_at", url_expiry(showing)},
          {"width", image.width},
          {"height", image.height},
          {"format", image.format},
          {"bytes", image.bytes},
          {"sha256", image.sha256}};
}

json error_object(const Job& job) {
  return {{"code", name(job.error->code)},
          {"message", job.error->message},
          {"retryable", job.error->retryable}};
}

json timings_object(const Job& job, const contract::JobResult& result) {
  // Until a result says otherwise, a job that was started has waited from its acceptance.
  const double waited = job.started_at > 0 ? static_cast<double>(job.started_at - job.created_at)
                                           : result.timings.queue;
  return {{"queue_ms", result.timings.queue > 0.0 ? result.timings.queue : waited},
          {"encode_ms", result.timings.encode},
          {"denoise_ms", result.timings.denoise},
          {"decode_ms", result.timings.decode},
          {"post_ms", result.timings.post},
          {"deliver_ms", result.timings.deliver}};
}

json usage_object(const contract::JobRequest& request, const contract::JobResult& result) {
  const auto images = static_cast<std::int64_t>(result.images.size());
  std::int64_t pixels = 0;
  for (const contract::Artifact& artifact : result.images) {
    pixels += artifact.image.width * artifact.image.height;
  }
  const contract::Timings& timings = result.timings;
  const double busy = timings.encode + timings.denoise + timings.decode + timings.post;
  return {{"images", images},
          {"steps", images * request.picture.steps.value_or(0)},
          {"pixels", pixels},
          {"seconds", busy / 1e3}};
}

// Counted as the "progress" events do: of all pictures together. A sampler that calls the model
// more than once a step is known by what the worker tells.
json progress_object(const Job& job, const contract::JobRequest& request,
                     const contract::JobResult& result, const Moment& moment) {
  const contract::GenerationRequest& picture = request.picture;
  const std::int64_t steps =
      result.steps > 0 ? result.steps : picture.steps.value_or(0) * picture.num_images;
  if (job.status == JobStatus::kCompleted || job.status == JobStatus::kBlocked) {
    return {{"step", steps}, {"steps", steps}, {"value", 1.0}};
  }
  if (moment.progress) {
    const json told = json::parse(moment.progress->data, nullptr, /*allow_exceptions=*/false);
    if (told.is_object()) return told;
  }
  return {{"step", 0}, {"steps", steps}, {"value", 0.0}};
}

json urls_object(const Job& job, const Showing& showing) {
  const std::string self = generation_url(job.id, showing);
  return {{"self", self}, {"events", self + "/events"}, {"cancel", self + "/cancel"}};
}

// Tenths of a second are all that an estimate is good for.
json eta(const std::optional<double>& seconds) {
  return seconds ? json(std::round(*seconds * 10.0) / 10.0) : json();
}

template <typename Value>
Value text_or_nothing(const std::string& text, Result<Value> (*read)(std::string_view)) {
  return text.empty() ? Value{} : read(text).value_or_throw();
}

void add_times(const Job& job, json& object) {
  object["created_at"] = timestamp(job.created_at);
  if (job.started_at > 0) object["started_at"] = timestamp(job.started_at);
  if (job.finished_at > 0) object["finished_at"] = timestamp(job.finished_at);
}

}  // namespace

std::string timestamp(std::int64_t milliseconds) {
  const std::int64_t seconds = milliseconds / 1000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(seconds)),
                     milliseconds % 1000);
}

std::string url_expiry(const Showing& showing) {
  const auto now = std::chrono::floor<std::chrono::seconds>(showing.clock.wall());
  return timestamp(platform::Millis(now + showing.url_lifetime).count());
}

std::string generation_url(std::string_view id, const Showing& showing) {
  return fmt::format("{}/v1/generations/{}", showing.public_url, id);
}

json image_object(const contract::Artifact& artifact, const Showing& showing) {
  json object = stored_image(artifact.image, showing);
  object["seed"] = artifact.seed;
  object["index"] = artifact.index;
  object["thumbnails"] = json::array();
  for (const contract::StoredImage& thumbnail : artifact.thumbnails) {
    object["thumbnails"].push_back(stored_image(thumbnail, showing));
  }
  return object;
}

json generation_object(const Job& job, const Showing& showing, const Moment& moment) {
  const auto request = text_or_nothing(job.request, contract::job_request_from_text);
  const auto result = text_or_nothing(job.result, contract::job_result_from_text);
  json object = {{"request_id", job.id},
                 {"status", name(job.status)},
                 {"tier", name(job.tier)},
                 {"progress", progress_object(job, request, result, moment)},
                 {"images", json::array()},
                 {"timings", timings_object(job, result)},
                 {"model",
                  {{"name", result.model_name.empty() ? job.model : result.model_name},
                   {"hash", result.model_hash}}},
                 {"usage", usage_object(request, result)},
                 {"urls", urls_object(job, showing)}};
  add_times(job, object);
  if (moment.place) {
    object["position"] = moment.place->position;
    object["eta_seconds"] = eta(moment.place->eta_seconds);
  }
  if (job.cancel_requested && !contract::is_terminal(job.status)) object["cancel_requested"] = true;
  for (const contract::Artifact& artifact : result.images) {
    object["images"].push_back(image_object(artifact, showing));
  }
  if (job.error) object["error"] = error_object(job);
  if (!result.warnings.empty()) object["warnings"] = result.warnings;
  if (!request.template_name.empty()) object["template"] = request.template_name;
  if (!request.metadata.empty()) object["metadata"] = json::parse(request.metadata);
  return object;
}

json accepted_object(const Job& job, const Showing& showing,
                     const std::optional<queue::QueuePlace>& place) {
  // A worker may have taken it between its acceptance and this answer.
  const queue::QueuePlace shown =
      place.value_or(queue::QueuePlace{.position = 0, .eta_seconds = 0.0});
  return {{"request_id", job.id},
          {"status", name(JobStatus::kQueued)},
          {"tier", name(job.tier)},
          {"position", shown.position},
          {"eta_seconds", eta(shown.eta_seconds)},
          {"urls", urls_object(job, showing)}};
}

std::string generation_etag(const Job& job, const Moment& moment, const platform::Clock& clock) {
  const std::string state = fmt::format(
      "{} {} {} {} {} {}", job.id, job.last_event, job.attempt,
      moment.place ? moment.place->position : 0, moment.progress ? moment.progress->id : 0,
      job.result.empty() ? 0 : clock.wall().count() / kEtagPeriod);
  return fmt::format("W/\"{}\"", delivery::sha256_hex(delivery::bytes_of(state)).substr(0, 32));
}

}  // namespace limner::gateway::api_v1
