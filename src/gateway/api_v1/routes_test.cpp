#include "gateway/api_v1/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <regex>

#include "gateway/api_v1/api_for_test.h"
#include "gateway/api_v1/artifact_routes.h"
#include "gateway/api_v1/openapi_text.h"
#include "gateway/api_v1/upload_routes.h"
#include "gateway/webhooks/routes.h"
#include "image/encode.h"

namespace limner::gateway::api_v1 {
namespace {

using nlohmann::json;

class Routes : public ApiTest {
 protected:
  std::string stored(const std::string& bytes, const std::string& download = "") {
    const auto object =
        artifacts_
            ->put({.account = "ada"},
                  {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()})
            .value();
    const std::string url =
        artifacts_->sign({.key = object.key, .download_name = download}).value();
    return url.substr(std::string(kPublicUrl).size());
  }
  Answer part(const std::string& target, const std::string& range) {
    return ask({.target = target, .headers = {{"Range", range}}, .account = ""});
  }
};

class NoReceiver final : public platform::http::Exchange {
 public:
  Result<platform::http::Reply> send(const platform::http::Request&) override {
    return Error{ErrorCode::kUnavailable, "nobody there", true};
  }
};

TEST_F(Routes, EachIsDescribedAndNothingElseIs) {
  const auto messages = delivery::WebhookStore::open(folder_ / "limner.db", clock_).value();
  NoReceiver nobody;
  webhooks::Notifier notifier(
      {*rows_, *messages, nobody, clock_, metrics_, log_},
      [](const contract::Job&, const std::optional<contract::JobEvent>&) { return json(); });
  webhooks::add_routes(router_, {*messages, notifier, blocking_});
  const json description = json::parse(openapi_text());
  std::set<std::string> described, routed;
  for (const auto& [path, operations] : description["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      described.insert(method + " " + path);
    }
  }
  for (const auto& route : router_.routes()) {
    std::string method(http::beast_http::to_string(route.method));
    std::transform(method.begin(), method.end(), method.begin(),
                   [](char c) { return static_cast<char>(c + 32); });
    std::string pattern = route.pattern;
    if (const auto tail = pattern.find("...}"); tail != std::string::npos) pattern.erase(tail, 3);
    routed.insert(method + " " + pattern);
  }
  EXPECT_EQ(described, routed);
  EXPECT_EQ(json::parse(get("/openapi.json").body), description);
}

TEST_F(Routes, OnlyThoseForEverybodyAreOpen) {
  std::set<std::string> open;
  for (const auto& route : router_.routes()) {
    http::Request request;
    request.method = route.method;
    request.target = std::regex_replace(route.pattern, std::regex(R"(\{[^}]*\})"), "x");
    if (router_.find(request).options.open) open.insert(route.pattern);
    const Answer answer = ask({.method = std::string(http::beast_http::to_string(route.method)),
                               .target = request.target,
                               .body = "{}",
                               .account = ""});
    EXPECT_EQ(answer.status == 401, !router_.find(request).options.open) << route.pattern;
  }
  EXPECT_EQ(open, (std::set<std::string>{"/v1/artifacts/{key...}", "/livez", "/readyz", "/ping",
                                         "/metrics", "/openapi.json"}));
}

TEST_F(Routes, TellWhatThereIsToDrawWith) {
  const json models = get("/v1/models").json()["data"];
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0]["name"], "miniature");
  EXPECT_EQ(models[0]["default"], true);
  EXPECT_EQ(models[0]["limits"]["largest_side"], 512);
  EXPECT_EQ(get("/v1/samplers").json(), json({{"data",
                                               {{{"name", "ddim"}, {"families", {"sd1"}}},
                                                {{"name", "euler"}, {"families", {"sd1"}}}}},
                                              {"schedules", {"default", "karras"}}}));
  EXPECT_EQ(get("/v1/loras").json()["data"][0]["name"], "moon");
  EXPECT_EQ(get("/v1/models?x=1").status, 400);
}

TEST_F(Routes, TellOfTemplatesWithoutWhereTheirFilesComeFrom) {
  const Answer answer = get("/v1/templates");
  EXPECT_EQ(answer.json()["data"][0]["key"], "portrait");
  EXPECT_EQ(answer.json()["data"][0]["defaults"]["steps"], 7);
  EXPECT_EQ(answer.body.find("token=secret"), std::string::npos);
}

TEST_F(Routes, TemplatesAreReadAgainByAdministratorsAndABrokenFileChangesNothing) {
  Asked reload{.method = "POST", .target = "/v1/templates/reload"};
  EXPECT_EQ(ask(reload).status, 403);
  reload.admin = true;
  EXPECT_EQ(ask(reload).status, 200);
  EXPECT_EQ(acts_, std::vector<std::string>{"key-ada templates.reload"});
  std::ofstream(folder_ / "templates.json") << "{ \"templates\": 3 }";
  EXPECT_EQ(ask(reload).status, 422);
  EXPECT_EQ(get("/v1/templates").json()["data"].size(), 1u);
}

TEST_F(Routes, TellHowBusyTheQueueIs) {
  submit();
  submit();
  const json before = get("/v1/queue").json();
  EXPECT_EQ(before["tiers"][1], json({{"tier", "fast"}, {"waiting", 2}, {"eta_seconds", nullptr}}));
  complete(lease());
  const json after = get("/v1/queue").json();
  EXPECT_EQ(after["tiers"][1]["waiting"], 1);
  EXPECT_GT(after["tiers"][1]["eta_seconds"], 0.0);
  EXPECT_EQ(after["running"], 0);
  EXPECT_EQ(after["paused"], false);
}

TEST_F(Routes, ArtifactsOpenToTheirSignatureAlone) {
  const std::string target = stored("0123456789");
  const Answer whole = ask({.target = target, .account = ""});
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(whole.body, "0123456789");
  EXPECT_EQ(whole.headers.at("Content-Type"), "image/png");
  EXPECT_EQ(whole.headers.at("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(whole.headers.at("Content-Disposition"), "inline");
  EXPECT_EQ(whole.headers.at("Cache-Control"), "private, max-age=3600, immutable");
  EXPECT_NE(whole.headers.at("Content-Security-Policy").find("sandbox"), std::string::npos);
  const std::string path = target.substr(0, target.find('?'));
  EXPECT_EQ(get(path).status, 403);
  std::string altered = target;
  altered.back() = altered.back() == 'A' ? 'B' : 'A';
  EXPECT_EQ(get(altered).status, 403);
  EXPECT_EQ(get(stored("x", "my picture.png")).headers.at("Content-Disposition").substr(0, 10),
            "attachment");
  clock_.advance(std::chrono::hours(1));
  EXPECT_EQ(get(target).status, 403);
}

TEST_F(Routes, ArtifactsAreServedInPartsAndByEtag) {
  const std::string target = stored("0123456789");
  const Answer middle = part(target, "bytes=2-4");
  EXPECT_EQ(middle.status, 206);
  EXPECT_EQ(middle.body, "234");
  EXPECT_EQ(middle.headers.at("Content-Range"), "bytes 2-4/10");
  EXPECT_EQ(part(target, "bytes=7-").body, "789");
  EXPECT_EQ(part(target, "bytes=-3").body, "789");
  EXPECT_EQ(part(target, "bytes=8-100").headers.at("Content-Range"), "bytes 8-9/10");
  const Answer behind = part(target, "bytes=10-");
  EXPECT_EQ(behind.status, 416);
  EXPECT_EQ(behind.headers.at("Content-Range"), "bytes */10");
  for (const char* ignored : {"bytes=0-1,4-5", "pages=1-2", "bytes=4-2", "bytes=x-", "bytes=-"}) {
    EXPECT_EQ(part(target, ignored).status, 200) << ignored;
  }
  const std::string etag = middle.headers.at("ETag");
  EXPECT_EQ(ask({.target = target, .headers = {{"If-None-Match", etag}}}).status, 304);
  const std::map<std::string, std::string> stale = {{"Range", "bytes=0-0"}, {"If-Range", "\"x\""}};
  EXPECT_EQ(ask({.target = target, .headers = stale}).body, "0123456789");
  const Answer head = ask({.method = "HEAD", .target = target, .account = ""});
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("Content-Length"), "10");
  EXPECT_EQ(head.body, "");
}

TEST_F(Routes, UploadsAreKnownByTheirContent) {
  const auto png =
      image::encode({.width = 3, .height = 2, .pixels = std::vector<std::uint8_t>(18)}, {}).value();
  const std::string body(png.begin(), png.end());
  const Asked asked{.method = "POST", .target = "/v1/uploads", .body = body};
  const json first = ask(asked).json();
  EXPECT_EQ(first["content_type"], "image/png");
  EXPECT_EQ(first["width"], 3);
  EXPECT_EQ(first["id"], first["sha256"].get<std::string>() + ".png");
  EXPECT_EQ(ask(asked).json()["id"], first["id"]);
  const std::string url = first["url"];
  EXPECT_EQ(get(url.substr(std::string(kPublicUrl).size())).body, body);

  const auto status = [&](std::string text) {
    return ask({.method = "POST", .target = "/v1/uploads", .body = std::move(text)}).status;
  };
  EXPECT_EQ(status(""), 400);
  EXPECT_EQ(status("GIF89a"), 415);
  EXPECT_EQ(status(body.substr(0, 20)), 422);
  EXPECT_EQ(status(body + std::string(kMostUploadBytes, 'x')), 413);
  std::string bomb = body;
  bomb[16] = 0x7F;  // 2 130 706 435 pixels wide
  EXPECT_EQ(status(bomb), 422);
}

TEST_F(Routes, UploadsMayBeFormsWithOneFile) {
  const auto png =
      image::encode({.width = 3, .height = 2, .pixels = std::vector<std::uint8_t>(18)}, {}).value();
  const std::string file(png.begin(), png.end());
  const auto send = [&](const std::string& body, const std::string& type) {
    return ask({.method = "POST",
                .target = "/v1/uploads",
                .body = body,
                .headers = {{"Content-Type", type}}});
  };
  const auto form = [&](const std::string& content) {
    return "--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.gif\"\r\n"
           "Content-Type: image/gif\r\n\r\n" +
           content + "\r\n";
  };
  const std::string type = "Multipart/Form-Data; boundary=xyz";
  const Answer stored = send(form(file) + "--xyz--\r\n", type);
  ASSERT_EQ(stored.status, 201) << stored.body;
  EXPECT_EQ(stored.json()["content_type"], "image/png");
  EXPECT_EQ(stored.json()["bytes"], file.size());
  EXPECT_EQ(send(file, "image/png").json()["id"], stored.json()["id"]);

  EXPECT_EQ(send(form("GIF89a") + "--xyz--", type).status, 415);
  EXPECT_EQ(send(form("") + "--xyz--", type).status, 400);
  for (const std::string& body : {std::string("--xyz--"), form(file),
                                  form(file) + form(file) + "--xyz--", file, std::string()}) {
    const Answer wrong = send(body, type);
    EXPECT_EQ(wrong.status, 400);
    EXPECT_EQ(wrong.json()["code"], "invalid_form");
  }
  EXPECT_EQ(send(form(file) + form(file) + "--xyz--", type).json()["detail"],
            "The form must have one part, the file; it has 2.");
  EXPECT_EQ(send(form(file) + "--xyz--", "multipart/form-data").status, 400);
}

TEST_F(Routes, AddUpWhatWasDrawn) {
  for (int day = 0; day < 3; ++day) {
    for (int job = 0; job <= day; ++job) {
      submit();
      complete(lease());
    }
    clock_.advance(std::chrono::hours(24));
  }
  const json days = get("/v1/usage").json();
  ASSERT_EQ(days["data"].size(), 3u);
  EXPECT_EQ(days["data"][0]["day"], "2023-11-14");
  EXPECT_EQ(days["data"][0]["jobs"], 1);
  EXPECT_EQ(days["data"][2]["images"], 3);
  EXPECT_EQ(days["totals"]["jobs"], 6);
  EXPECT_EQ(days["totals"]["steps"], 72);
  const json keys = get("/v1/usage?by=model,key&from=2023-11-15&to=2023-11-16").json();
  ASSERT_EQ(keys["data"].size(), 1u);
  EXPECT_EQ(keys["data"][0]["model"], "miniature");
  EXPECT_EQ(keys["data"][0]["key_id"], "key-ada");
  EXPECT_EQ(keys["data"][0]["pixels"], 5 * 16384);
  const json tiers = get("/v1/usage?by=tier,day").json();
  ASSERT_EQ(tiers["data"].size(), 3u);
  EXPECT_EQ(tiers["data"][0]["tier"], "fast");
  EXPECT_EQ(ask({.target = "/v1/usage", .account = "bob"}).json()["totals"]["jobs"], 0);
  const Asked all{.target = "/v1/usage?account=*&by=account", .account = "bob", .admin = true};
  EXPECT_EQ(ask(all).json()["data"][0]["account"], "ada");
  EXPECT_EQ(ask({.target = all.target, .account = "bob"}).status, 403);
  for (const char* wrong : {"from=2023-02-30", "from=14.11.2023", "from=2020-01-01", "by=hour",
                            "by=", "to=2023-11-1x"}) {
    EXPECT_EQ(get(std::string("/v1/usage?") + wrong).status, 400) << wrong;
  }
}

TEST_F(Routes, TellWhetherTheServiceIsWell) {
  EXPECT_EQ(get("/livez").status, 200);
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(get("/ping").status, 200);
  not_ready_ = {"No model is loaded yet."};
  const Answer waiting = get("/readyz");
  EXPECT_EQ(waiting.status, 503);
  EXPECT_EQ(waiting.json()["reasons"][0], "No model is loaded yet.");
  EXPECT_EQ(waiting.headers.at("Content-Type"), "application/problem+json");
  EXPECT_EQ(get("/ping").status, 204);
  EXPECT_EQ(get("/livez").status, 200);
  metrics_.queue_depth("fast", 3);
  const Answer metrics = get("/metrics");
  EXPECT_NE(metrics.body.find("limner_queue_depth{tier=\"fast\"} 3"), std::string::npos);
  EXPECT_TRUE(metrics.headers.at("Content-Type").starts_with("text/plain; version=0.0.4"));
}

}  // namespace
}  // namespace limner::gateway::api_v1
