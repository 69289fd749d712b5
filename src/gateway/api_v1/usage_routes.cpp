#include "gateway/api_v1/usage_routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/quote.h"
#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using http::beast_http::status;
using nlohmann::json;
using std::chrono::sys_days;

constexpr std::int64_t kDay = 86'400'000;  // milliseconds
constexpr std::int64_t kMostDays = 400;
constexpr std::size_t kMostSums = 100'000;
const std::vector<std::string> kBy = {"day", "account", "key", "model", "tier"};

std::string date(std::int64_t day) {
  const std::chrono::year_month_day shown{sys_days{std::chrono::days(day)}};
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(shown.year()),
                     static_cast<unsigned>(shown.month()), static_cast<unsigned>(shown.day()));
}

// Days since 1970 of "2026-11-21". Throws 400.
std::int64_t day_of(const http::Request& request, const char* name, std::int64_t fallback) {
  const auto text = query(request, name);
  if (!text) return fallback;
  unsigned parts[3] = {};
  const bool form = text->size() == 10 && (*text)[4] == '-' && (*text)[7] == '-';
  for (std::size_t i = 0, at = 0; form && i < 3; at += i == 0 ? 5 : 3, ++i) {
    const char* first = text->data() + at;
    const char* last = first + (i == 0 ? 4 : 2);
    if (std::from_chars(first, last, parts[i]).ptr != last) parts[1] = 13;
  }
  const std::chrono::year_month_day day{std::chrono::year(static_cast<int>(parts[0])),
                                        std::chrono::month(parts[1]), std::chrono::day(parts[2])};
  if (!form || !day.ok()) {
    refuse_field(name, fmt::format("must be a day such as 2026-11-21, got {}", quote(*text)));
  }
  return sys_days(day).time_since_epoch().count();
}

struct Question {
  queue::UsageQuery query{};
  std::vector<std::string> by{};
};

std::vector<std::string> read_by(const http::Request& request) {
  std::vector<std::string> by;
  const std::string text = query(request, "by").value_or("day");
  for (std::size_t at = 0; at <= text.size();) {
    const auto comma = std::min(text.find(',', at), text.size());
    by.push_back(text.substr(at, comma - at));
    at = comma + 1;
    if (std::find(kBy.begin(), kBy.end(), by.back()) == kBy.end()) {
      refuse_field("by", fmt::format("must be names among {}, with commas between, got {}",
                                     fmt::join(kBy, ", "), quote(text)));
    }
  }
  return by;
}

Question read_question(const ApiV1Services& services, const http::Request& request,
                       const http::Caller& caller) {
  check_query(request, {"from", "to", "by", "account"});
  const std::int64_t today = services.clock.wall().count() / kDay;
  const std::int64_t to = day_of(request, "to", today);
  const std::int64_t from = day_of(request, "from", to - 30);
  if (from > to || to - from > kMostDays) {
    refuse_field("from", fmt::format("must be 0 to {} days before `to`", kMostDays));
  }
  Question question{.query = {.account = query(request, "account").value_or(caller.account),
                              .since = from * kDay,
                              .before = (to + 1) * kDay,
                              .limit = kMostSums},
                    .by = read_by(request)};
  if (question.query.account != caller.account && !caller.may_administer) {
    refuse(status::forbidden, "permission_denied",
           "Usage of other accounts is shown to keys with the scope `admin`.");
  }
  if (question.query.account == "*") question.query.account.clear();
  return question;
}

struct Sums {
  std::int64_t jobs = 0;
  contract::Usage usage{};

  void add(const queue::UsageSum& other) {
    jobs += other.jobs;
    usage.images += other.usage.images;
    usage.steps += other.usage.steps;
    usage.pixels += other.usage.pixels;
    usage.seconds += other.usage.seconds;
  }
  json object() const {
    return {{"jobs", jobs},
            {"images", usage.images},
            {"steps", usage.steps},
            {"pixels", usage.pixels},
            {"seconds", usage.seconds}};
  }
};

// The members by which rows are told apart, in the order asked for.
std::vector<std::pair<std::string, std::string>> group_of(const queue::UsageSum& sum,
                                                          const std::vector<std::string>& by) {
  std::vector<std::pair<std::string, std::string>> group;
  for (const std::string& name : by) {
    if (name == "day") group.emplace_back("day", date(sum.day));
    if (name == "account") group.emplace_back("account", sum.account);
    if (name == "key") group.emplace_back("key_id", sum.key_id);
    if (name == "model") group.emplace_back("model", sum.model);
    if (name == "tier") group.emplace_back("tier", contract::name(sum.tier));
  }
  return group;
}

// Blocks.
json answer(const ApiV1Services& services, const Question& question) {
  const auto rows = services.store.usage_sums(question.query).value_or_throw();
  if (rows.size() == kMostSums) {
    refuse_field("from", "names a time of too many days, keys and models: ask for a shorter one");
  }
  std::map<std::vector<std::pair<std::string, std::string>>, Sums> groups;
  Sums totals;
  for (const queue::UsageSum& row : rows) {
    groups[group_of(row, question.by)].add(row);
    totals.add(row);
  }
  json data = json::array();
  for (const auto& [group, sums] : groups) {
    json object = sums.object();
    for (const auto& [name, value] : group) object[name] = value;
    data.push_back(std::move(object));
  }
  return {{"data", std::move(data)}, {"totals", totals.object()}};
}

}  // namespace

asio::awaitable<http::Response> show_usage(Api& api, http::Request& request) {
  const http::Caller& caller = require(request, Scope::kRead);
  const Question question = read_question(api.services, request, caller);
  const auto read = [&api, question] { return answer(api.services, question); };
  const json object = co_await http::blocking(api.services.blocking, read);
  co_return json_answer(object);
}

}  // namespace limner::gateway::api_v1
