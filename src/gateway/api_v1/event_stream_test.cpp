#include <fmt/format.h>

#include "gateway/api_v1/api_for_test.h"

namespace limner::gateway::api_v1 {
namespace {

using nlohmann::json;

struct Event {
  std::int64_t id = 0;
  std::string type;
  json data;
};

// As a browser reads a stream (WHATWG HTML, section 9.2.6), as far as we write it.
std::vector<Event> parse(const std::string& text) {
  std::vector<Event> events;
  Event event;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto end = text.find('\n', at);
    EXPECT_NE(end, std::string::npos) << "a line without its end";
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("id: ")) event.id = std::stoll(line.substr(4));
    if (line.starts_with("event: ")) event.type = line.substr(7);
    if (line.starts_with("data: ")) event.data = json::parse(line.substr(6));
    if (line.empty() && !event.type.empty()) events.push_back(std::exchange(event, {}));
  }
  return events;
}

class EventStreams : public ApiTest {
 protected:
  // All that comes until the stream ends.
  std::vector<Event> rest(const Answer& answer) {
    std::string text;
    for (std::string piece = next(answer); !piece.empty(); piece = next(answer)) text += piece;
    return parse(text);
  }
  static std::vector<std::string> types(const std::vector<Event>& events) {
    std::vector<std::string> names;
    for (const Event& event : events) names.push_back(event.type);
    return names;
  }
  Answer open(const std::string& id, const std::string& last = "") {
    Asked asked{.target = "/v1/generations/" + id + "/events"};
    if (!last.empty()) asked.headers["Last-Event-ID"] = last;
    return ask(asked);
  }
  void tell_progress(const queue::Lease& leased, int step) {
    const std::string data = json({{"step", step}, {"steps", 4}, {"value", step / 4.0}}).dump();
    ASSERT_TRUE(queue_->tell(leased, "progress", data).ok());
  }
};

TEST_F(EventStreams, BeginWithThePresentStateAndEndWithTheWholeObject) {
  const std::string id = submit();
  const Answer stream = open(id);
  ASSERT_EQ(stream.status, 200);
  EXPECT_EQ(stream.headers.at("Content-Type"), "text/event-stream");
  const auto first = parse(next(stream));
  ASSERT_EQ(types(first), std::vector<std::string>{"status"});
  EXPECT_EQ(first[0].data["status"], "queued");
  EXPECT_EQ(first[0].data["position"], 1);

  const auto leased = lease();
  EXPECT_EQ(parse(next(stream))[0].data, json({{"request_id", id}, {"status", "running"}}));
  tell_progress(leased, 1);
  EXPECT_EQ(parse(next(stream))[0].data["step"], 1);
  ASSERT_TRUE(
      queue_->tell(leased, "preview", R"({"content_type":"image/jpeg","data_base64":"AA=="})")
          .ok());
  EXPECT_EQ(parse(next(stream))[0].data["content_type"], "image/jpeg");
  ASSERT_TRUE(queue_->tell(leased, "image", contract::to_text(artifact(leased, "a picture"))).ok());
  const auto image = parse(next(stream));
  EXPECT_EQ(image[0].type, "image");
  EXPECT_EQ(image[0].data["index"], 0);
  EXPECT_TRUE(image[0].data["url"].get<std::string>().starts_with(kPublicUrl));
  complete(leased);
  const auto end = rest(stream);
  ASSERT_EQ(types(end), std::vector<std::string>{"completed"});
  EXPECT_EQ(end[0].data["images"].size(), 1u);
  EXPECT_EQ(end[0].data["status"], "completed");
}

TEST_F(EventStreams, AReaderWhoComesBackIsToldTheRestExactlyOnce) {
  const std::string id = submit();
  const auto leased = lease();
  for (int step = 1; step <= 4; ++step) tell_progress(leased, step);
  const auto all = parse(next(open(id, "0")));
  EXPECT_EQ(types(all), (std::vector<std::string>{"status", "status", "progress", "progress",
                                                  "progress", "progress"}));
  for (std::size_t seen = 0; seen < all.size(); ++seen) {
    const Answer stream = open(id, std::to_string(all[seen].id));
    const auto more = seen + 1 < all.size() ? parse(next(stream)) : std::vector<Event>{};
    ASSERT_EQ(more.size(), all.size() - seen - 1);
    for (std::size_t i = 0; i < more.size(); ++i) EXPECT_EQ(more[i].id, all[seen + 1 + i].id);
  }
  complete(leased);
  const auto end = rest(open(id, std::to_string(all.back().id)));
  ASSERT_EQ(types(end), std::vector<std::string>{"completed"});
  EXPECT_EQ(
      ask({.target = fmt::format("/v1/generations/{}/events?after={}", id, end[0].id)}).status,
      204);
  EXPECT_EQ(open(id, "x").status, 400);
  EXPECT_EQ(ask({.target = "/v1/generations/" + id + "/events?after=-1",
                 .headers = {{"Last-Event-ID", "1"}}})
                .status,
            400);
}

TEST_F(EventStreams, OfAnEndedJobAreItsEnd) {
  const std::string id = submit();
  ASSERT_TRUE(queue_->cancel(id).ok());
  EXPECT_EQ(types(rest(open(id))), std::vector<std::string>{"canceled"});
}

TEST_F(EventStreams, GoOnOverAnEndThatWasTakenBack) {
  const std::string id = submit();
  ASSERT_TRUE(queue_->cancel(id).ok());
  ASSERT_TRUE(queue_->retry(id).ok());
  const Answer stream = open(id, "0");
  const auto seen = parse(next(stream));
  EXPECT_EQ(types(seen), (std::vector<std::string>{"status", "status", "status"}));
  EXPECT_EQ(seen[1].data["status"], "canceled");
  complete(lease());
  EXPECT_EQ(types(rest(stream)).back(), "completed");
}

TEST_F(EventStreams, OfManyReadersAllEnd) {
  const std::string id = submit();
  std::vector<Answer> streams;
  for (int i = 0; i < 200; ++i) streams.push_back(open(id));
  EXPECT_EQ(hub_.subscriptions(), 200u);
  const auto leased = lease();
  for (int step = 1; step <= 4; ++step) tell_progress(leased, step);
  complete(leased);
  for (const Answer& stream : streams) {
    const auto events = rest(stream);
    EXPECT_EQ(events.back().type, "completed");
    for (std::size_t i = 1; i < events.size(); ++i) EXPECT_GT(events[i].id, events[i - 1].id);
  }
  streams.clear();
  EXPECT_EQ(hub_.subscriptions(), 0u);
}

TEST_F(EventStreams, EndWhenTheServiceStops) {
  const Answer stream = open(submit());
  EXPECT_FALSE(next(stream).empty());
  hub_.close();
  EXPECT_EQ(next(stream), "");
}

}  // namespace
}  // namespace limner::gateway::api_v1
