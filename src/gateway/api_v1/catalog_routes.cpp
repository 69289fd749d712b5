#include "gateway/api_v1/catalog_routes.h"

#include <cmath>
#include <map>
#include <set>

#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using contract::ModelCard;
using http::Response;
using http::beast_http::status;
using nlohmann::json;

json limits_object(const contract::Limits& limits) {
  return {{"multiple", limits.multiple},         {"smallest_side", limits.smallest_side},
          {"largest_side", limits.largest_side}, {"most_steps", limits.most_steps},
          {"most_images", limits.most_images},   {"longest_prompt", limits.longest_prompt}};
}

json defaults_object(const contract::Limits& limits) {
  return {{"width", limits.default_width},
          {"height", limits.default_height},
          {"steps", limits.default_steps},
          {"guidance_scale", limits.default_guidance_scale}};
}

json model_object(const ModelCard& card, const contract::Catalog& catalog) {
  json object = {{"name", card.name},
                 {"family", card.family},
                 {"pipeline", card.pipeline},
                 {"hash", card.hash},
                 {"bytes", card.bytes},
                 {"loaded", card.loaded},
                 {"default", card.name == catalog.default_model},
                 {"limits", limits_object(card.limits)},
                 {"defaults", defaults_object(card.limits)},
                 {"samplers", card.limits.samplers},
                 {"schedules", card.limits.schedules}};
  if (!card.problem.empty()) object["problem"] = card.problem;
  return object;
}

json adapter_object(const contract::AdapterCard& card) {
  json object = {{"name", card.name},
                 {"kind", card.kind},
                 {"family", card.family},
                 {"trigger_words", card.trigger_words},
                 {"bytes", card.bytes}};
  if (!card.problem.empty()) object["problem"] = card.problem;
  return object;
}

json samplers_object(const contract::Catalog& catalog) {
  std::map<std::string, std::set<std::string>> families_of;
  std::set<std::string> schedules;
  for (const ModelCard& card : catalog.models) {
    for (const std::string& sampler : card.limits.samplers) {
      families_of[sampler].insert(card.family);
    }
    schedules.insert(card.limits.schedules.begin(), card.limits.schedules.end());
  }
  json object = {{"data", json::array()}, {"schedules", schedules}};
  for (const auto& [sampler, families] : families_of) {
    object["data"].push_back({{"name", sampler}, {"families", families}});
  }
  return object;
}

// Without the places that files come from: their URLs may hold keys.
json template_object(const platform::Template& made) {
  json loras = json::array();
  for (const platform::TemplateLora& lora : made.loras) {
    loras.push_back({{"name", lora.name}, {"weight", lora.scale}});
  }
  json defaults = json::object();
  const platform::TemplateDefaults& given = made.defaults;
  if (given.steps) defaults["steps"] = *given.steps;
  if (given.width) defaults["width"] = *given.width;
  if (given.height) defaults["height"] = *given.height;
  if (given.guidance_scale) defaults["guidance_scale"] = *given.guidance_scale;
  if (!given.sampler.empty()) defaults["sampler"] = given.sampler;
  if (!given.schedule.empty()) defaults["schedule"] = given.schedule;
  if (!given.prompt_prefix.empty()) defaults["prompt_prefix"] = given.prompt_prefix;
  if (!given.negative_prompt.empty()) defaults["negative_prompt"] = given.negative_prompt;
  return {{"key", made.key},
          {"name", made.name},
          {"description", made.description},
          {"checkpoint", made.checkpoint.name},
          {"model", made.model_dir()},
          {"loras", std::move(loras)},
          {"defaults", std::move(defaults)}};
}

json templates_object(const platform::Templates* templates) {
  json object = {{"data", json::array()}, {"default", nullptr}};
  if (templates == nullptr) return object;
  for (const auto& [key, made] : templates->by_key) object["data"].push_back(template_object(made));
  if (!templates->default_template.empty()) object["default"] = templates->default_template;
  return object;
}

json queue_object(const queue::Queue& queue) {
  json tiers = json::array();
  for (const contract::Tier tier : contract::kTiers) {
    const auto seconds = queue.drain_seconds(tier);
    tiers.push_back({{"tier", name(tier)},
                     {"waiting", queue.waiting(tier)},
                     {"eta_seconds", seconds ? json(std::round(*seconds * 10.0) / 10.0) : json()}});
  }
  return {{"tiers", std::move(tiers)}, {"running", queue.running()}, {"paused", queue.paused()}};
}

}  // namespace

asio::awaitable<Response> list_models(Api& api, http::Request& request) {
  require(request, Scope::kRead);
  check_query(request, {});
  const auto catalog = api.services.catalog.catalog();
  json data = json::array();
  for (const ModelCard& card : catalog->models) data.push_back(model_object(card, *catalog));
  co_return json_answer({{"data", std::move(data)}});
}

asio::awaitable<Response> list_samplers(Api& api, http::Request& request) {
  require(request, Scope::kRead);
  check_query(request, {});
  co_return json_answer(samplers_object(*api.services.catalog.catalog()));
}

asio::awaitable<Response> list_loras(Api& api, http::Request& request) {
  require(request, Scope::kRead);
  check_query(request, {});
  const auto catalog = api.services.catalog.catalog();
  json data = json::array();
  for (const auto& card : catalog->adapters) data.push_back(adapter_object(card));
  co_return json_answer({{"data", std::move(data)}});
}

asio::awaitable<Response> list_templates(Api& api, http::Request& request) {
  require(request, Scope::kRead);
  check_query(request, {});
  const auto* store = api.services.templates;
  const auto templates = store == nullptr ? nullptr : store->current();
  co_return json_answer(templates_object(templates.get()));
}

asio::awaitable<Response> reload_templates(Api& api, http::Request& request) {
  const ApiV1Services& services = api.services;
  const http::Caller& caller = require(request, Scope::kAdminister);
  check_query(request, {});
  if (services.templates == nullptr) {
    refuse(status::not_found, "not_found", "This service has no templates.");
  }
  const auto reload = [&services, caller] {
    const auto done = services.templates->reload();
    if (!done.ok() && done.error().code == ErrorCode::kNotFound) {
      refuse(status::not_found, "not_found",
             "There is no file of templates; those read before stay in force.");
    }
    if (!done.ok()) {
      refuse(status::unprocessable_entity, "invalid_templates",
             "The templates read before stay in force: " + done.error().message);
    }
    if (services.audit) {
      services.audit(act_by(caller, platform::audit_action::kTemplatesReload, "templates"));
    }
    return services.templates->current();
  };
  const auto templates = co_await http::blocking(services.blocking, reload);
  co_return json_answer(templates_object(templates.get()));
}

asio::awaitable<Response> show_queue(Api& api, http::Request& request) {
  require(request, Scope::kRead);
  check_query(request, {});
  co_return json_answer(queue_object(api.services.queue));
}

}  // namespace limner::gateway::api_v1
