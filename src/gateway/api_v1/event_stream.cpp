#include "gateway/api_v1/event_stream.h"

#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <charconv>

#include "base/quote.h"
#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using contract::Job;
using contract::JobEvent;
using nlohmann::json;
using Steady = std::chrono::steady_clock;

// Proxies close connections that are silent for a minute or less.
constexpr std::chrono::seconds kHeartbeat{15};

std::string event_text(std::int64_t id, std::string_view type, const json& data) {
  return fmt::format("id: {}\nevent: {}\ndata: {}\n\n", id, type,
                     data.dump(-1, ' ', false, json::error_handler_t::replace));
}

bool is_end(const JobEvent& event) {
  const auto named = contract::status_named(event.type);
  return named && contract::is_terminal(*named);
}

json status_data(const JobEvent& event) {
  json data = {{"request_id", event.job_id}, {"status", event.data}};
  if (event.data == "canceling") {
    data["status"] = name(contract::JobStatus::kRunning);
    data["cancel_requested"] = true;
  }
  return data;
}

// The job as it is when the reader connects, under the id of the newest event.
std::string present_state(const Shown& shown, const Showing& showing, std::int64_t id) {
  const bool ended = contract::is_terminal(shown.job.status);
  return event_text(id, ended ? name(shown.job.status) : "status",
                    generation_object(shown.job, showing, shown.moment));
}

// Shows one job's events to one reader. Used by one coroutine at a time.
class EventStream final : public http::BodyStream {
 public:
  EventStream(Api& api, http::Caller caller, std::string id,
              std::unique_ptr<Subscription> subscription)
      : api_(api),
        caller_(std::move(caller)),
        id_(std::move(id)),
        subscription_(std::move(subscription)) {}

  // What is sent first, the id that it brings the reader to, and whether that was all.
  void begin(std::string text, std::int64_t last, bool ended) {
    first_ = "retry: 2000\n" + text;
    last_ = last;
    ended_ = ended;
  }

  asio::awaitable<std::string> next() override {
    if (!first_.empty()) co_return std::exchange(first_, {});
    const Steady::time_point heartbeat = Steady::now() + kHeartbeat;
    while (!ended_ && !subscription_->closed()) {
      const std::vector<Subscription::Event> events = subscription_->take();
      for (const Subscription::Event& event : events) {
        if (event->id <= last_ || ended_) continue;
        last_ = event->id;
        if (is_end(*event)) {
          const std::string ending = co_await end(*event);
          text_ += ending;
        } else {
          text_ += text_of(*event);
        }
      }
      if (!text_.empty()) co_return std::exchange(text_, {});
      if (Steady::now() >= heartbeat) co_return ": waiting\n\n";
      co_await subscription_->wait(heartbeat);
    }
    co_return "";
  }

  std::string text_of(const JobEvent& event) const {
    if (event.type == "status") return event_text(event.id, event.type, status_data(event));
    if (event.type == "image") {
      const auto artifact = contract::artifact_from_text(event.data).value_or_throw();
      return event_text(event.id, event.type, image_object(artifact, api_.services.showing()));
    }
    return event_text(event.id, event.type, json::parse(event.data));
  }

 private:
  // The whole object, as the row has it. A job that was tried again in between goes on: its end was
  // a state like any other.
  asio::awaitable<std::string> end(JobEvent event) {
    const auto find = [this] { return show(api_.services, caller_, id_); };
    const Shown shown = co_await http::blocking(api_.services.blocking, find);
    ended_ = contract::is_terminal(shown.job.status);
    if (ended_) co_return present_state(shown, api_.services.showing(), event.id);
    event.data = event.type;
    co_return event_text(event.id, "status", status_data(event));
  }

  Api& api_;
  const http::Caller caller_;
  const std::string id_;
  const std::unique_ptr<Subscription> subscription_;
  std::string first_, text_;
  std::int64_t last_ = 0;
  bool ended_ = false;
};

std::int64_t event_id(const char* name, std::string_view text) {
  std::int64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0) {
    refuse_field(name, fmt::format("must be the id of an event, got {}", quote(text)));
  }
  return id;
}

// A browser that comes back sends the header to the address it began with: the header is newer.
std::optional<std::int64_t> last_seen(const http::Request& request) {
  std::optional<std::int64_t> seen;
  if (const auto after = query(request, "after")) seen = event_id("after", *after);
  const std::string_view header = request.header("Last-Event-ID");
  if (!header.empty()) seen = event_id("Last-Event-ID", header);
  return seen;
}

// What a reader is told at once; blocks. False when there is nothing left to tell.
bool begin(EventStream& stream, const ApiV1Services& services, const http::Caller& caller,
           const std::string& id, std::optional<std::int64_t> after) {
  // The row last: an end that comes in between is then told by the row.
  const auto events = services.queue.events(id, after.value_or(0)).value_or_throw();
  const Shown shown = show(services, caller, id);
  const bool ended = contract::is_terminal(shown.job.status);
  const std::int64_t newest = std::max(shown.job.last_event, events.empty() ? 0 : events.back().id);
  if (!after) {
    stream.begin(present_state(shown, services.showing(), newest), newest, ended);
    return true;
  }
  if (ended && *after >= shown.job.last_event) return false;
  std::string text;
  for (const JobEvent& event : events) {
    JobEvent told = event;
    if (is_end(event)) {
      if (ended && event.id == shown.job.last_event) break;
      told.type = "status";
      told.data = event.type;
    }
    text += stream.text_of(told);
  }
  if (ended) text += present_state(shown, services.showing(), shown.job.last_event);
  stream.begin(std::move(text), std::max(newest, *after), ended);
  return true;
}

}  // namespace

asio::awaitable<http::Response> stream_events(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kRead);
  check_query(request, {"after"});
  const auto after = last_seen(request);
  const std::string id = request.path_parameters.at("id");
  const auto executor = co_await asio::this_coro::executor;
  // Before the row is read, so that nothing falls between the two.
  auto stream =
      std::make_unique<EventStream>(api, caller, id, api.services.hub.subscribe(id, executor));
  const auto start = [&api, caller, id, after, made = stream.get()] {
    return begin(*made, api.services, caller, id, after);
  };
  http::Response response;
  response.set("Cache-Control", "no-store");
  const bool more = co_await http::blocking(api.services.blocking, start);
  if (!more) {
    response.status = http::beast_http::status::no_content;
    co_return response;
  }
  response.set("Content-Type", "text/event-stream");
  response.set("X-Accel-Buffering", "no");  // nginx would hold events back
  response.stream = std::move(stream);
  co_return response;
}

}  // namespace limner::gateway::api_v1
