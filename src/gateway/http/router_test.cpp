#include "gateway/http/router.h"

#include <gtest/gtest.h>

#include "gateway/http/target.h"

namespace limner::gateway::http {
namespace {

using beast_http::verb;

Handler nothing() {
  return [](Request&) -> boost::asio::awaitable<Response> { co_return Response{}; };
}

Router made() {
  Router router;
  router.add(verb::get, "/v1/generations", nothing());
  router.add(verb::post, "/v1/generations", nothing(), {.body_limit = 7});
  router.add(verb::get, "/v1/generations/{id}", nothing());
  router.add(verb::post, "/v1/generations/{id}/cancel", nothing());
  router.add(verb::get, "/v1/generations/newest", nothing());
  router.add(verb::get, "/v1/artifacts/{key...}", nothing(), {.open = true});
  router.add(verb::get, "/", nothing());
  return router;
}

Request asked(std::string target, verb method = verb::get) {
  Request request;
  request.method = method;
  request.target = std::move(target);
  return request;
}

// The status that the router answers by itself; 0 when it found a handler.
int refusal(std::string target, verb method = verb::get) {
  Request request = asked(std::move(target), method);
  try {
    made().find(request);
    return 0;
  } catch (const ProblemFailure& failure) {
    return static_cast<int>(failure.problem().status);
  }
}

TEST(Router, FindsThePatternAndItsParameters) {
  const Router router = made();
  Request one = asked("/v1/generations/gen_1?limit=2&name=a+b%26c&empty=&bare");
  router.find(one);
  EXPECT_EQ(one.route, "/v1/generations/{id}");
  EXPECT_EQ(one.path, "/v1/generations/gen_1");
  EXPECT_EQ(one.path_parameters.at("id"), "gen_1");
  EXPECT_EQ(one.query, (std::map<std::string, std::string>{
                           {"limit", "2"}, {"name", "a b&c"}, {"empty", ""}, {"bare", ""}}));
  Request rest = asked("/v1/artifacts/ab/cd%20e.png");
  EXPECT_TRUE(router.find(rest).options.open);
  EXPECT_EQ(rest.path_parameters.at("key"), "ab/cd e.png");
  Request fixed = asked("/v1/generations/newest");
  router.find(fixed);
  EXPECT_EQ(fixed.route, "/v1/generations/newest");
  Request post = asked("/v1/generations", verb::post);
  EXPECT_EQ(router.find(post).options.body_limit, 7U);
  Request absolute = asked("http://pictures.example:8420/v1/generations?x=1");
  router.find(absolute);
  EXPECT_EQ(absolute.route, "/v1/generations");
  Request root = asked("https://pictures.example");
  router.find(root);
  EXPECT_EQ(root.route, "/");
}

TEST(Router, RefusesWhatNoRouteTakes) {
  EXPECT_EQ(refusal("/v1/nothing"), 404);
  EXPECT_EQ(refusal("/v1/generations/"), 404);
  EXPECT_EQ(refusal("//v1/generations"), 404);
  EXPECT_EQ(refusal("/v1/generations/a/b"), 404);
  EXPECT_EQ(refusal("/V1/generations"), 404);
  EXPECT_EQ(refusal("/v1/artifacts"), 404);
  EXPECT_EQ(refusal("/v1/artifacts/a//b"), 404);
  EXPECT_EQ(refusal("/v1/generations", verb::delete_), 405);
  EXPECT_EQ(refusal("/v1/generations", verb::unknown), 501);
  EXPECT_EQ(refusal("*"), 404);
}

TEST(Router, SaysWhichMethodsAPathTakes) {
  const Router router = made();
  Request wrong = asked("/v1/generations", verb::put);
  EXPECT_THROW(router.find(wrong), ProblemFailure);
  EXPECT_EQ(wrong.answer_fields["Allow"], "GET, POST, HEAD, OPTIONS");
  EXPECT_EQ(wrong.route, "/v1/generations");
  Request options = asked("/v1/generations/x/cancel", verb::options);
  EXPECT_TRUE(router.find(options).options.open);
  EXPECT_EQ(options.answer_fields["Allow"], "POST, OPTIONS");
  EXPECT_EQ(refusal("/v1/generations", verb::head), 0);
  EXPECT_EQ(refusal("/v1/generations/x/cancel", verb::head), 405);
  EXPECT_EQ(refusal("*", verb::options), 0);
}

TEST(Router, ListsItsRoutes) {
  const auto routes = made().routes();
  ASSERT_EQ(routes.size(), 7U);
  EXPECT_EQ(routes[1].method, verb::post);
  EXPECT_EQ(routes[1].pattern, "/v1/generations");
}

TEST(Target, EscapesAreReadStrictly) {
  for (const char* target : {"/v1/generations/%",
                             "/v1/generations/%4",
                             "/v1/generations/%zz",
                             "/v1/generations/a%00b",
                             "/v1/generations/a%0ab",
                             "/v1/generations/a%2fb",
                             "/v1/generations/a%5cb",
                             "/v1/generations/%2e%2E",
                             "/v1/generations/..",
                             "/v1/artifacts/../../etc/passwd",
                             "/v1/artifacts/a/%2e/b",
                             "/v1/generations/%ff",
                             "/v1/generations/%c0%af",
                             "/v1/generations/%ed%a0%80",
                             "/v1/generations/\xc3\xa4",
                             "/v1/generations?a=%",
                             "/v1/generations?a=1&a=2",
                             "/v1/generations?a=%ff",
                             "/v1/generations?a=%07",
                             "/v1/generations#x",
                             "/v1/generations/a b",
                             "v1/generations",
                             "",
                             "ftp://x/v1/generations",
                             "pictures.example:8420",
                             "http:/v1/generations"}) {
    EXPECT_EQ(refusal(target), 400) << target;
  }
  EXPECT_EQ(parse_target("/a%C3%A4?q=%E2%82%AC").segments.at(0), "a\xc3\xa4");
  EXPECT_EQ(parse_target("/a+b?q=a%2Bb").segments.at(0), "a+b");
  EXPECT_EQ(parse_target("/a+b?q=a%2Bb").query.at("q"), "a+b");
  EXPECT_TRUE(parse_target("/?&&").query.empty());
}

}  // namespace
}  // namespace limner::gateway::http
