#include "platform/config/load_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "platform/config/setting_value.h"
#include "platform/config/settings.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;
using Problems = std::vector<std::string>;

class ConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "configXXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    file_ = folder_ / "limner.toml";
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  CheckedConfig check(const std::string& toml) {
    sources_.file = write(file_, toml);
    return check_config(sources_);
  }

  // "PLACE: MESSAGE", with the file's name alone.
  Problems problems(const std::string& toml) {
    Problems all;
    for (const ConfigProblem& problem : check(toml).problems) {
      std::string text = problem.place + ": " + problem.message;
      const std::string folder = folder_.string() + "/";
      if (const auto at = text.find(folder); at != std::string::npos) text.erase(at, folder.size());
      all.push_back(text);
    }
    return all;
  }

  static const ShownSetting& find(const LoadedConfig& loaded, const std::string& name) {
    const auto place = std::find_if(loaded.settings.begin(), loaded.settings.end(),
                                    [&](const ShownSetting& one) { return one.name == name; });
    LIMNER_CHECK(place != loaded.settings.end(), name);
    return *place;
  }

  fs::path folder_, file_;
  ConfigSources sources_;
};

TEST_F(ConfigTest, EverySettingHasOneNameOneVariableAndAGroup) {
  std::set<std::string> names, variables;
  for (const Setting& setting : settings()) {
    EXPECT_TRUE(names.insert(setting.name).second) << setting.name;
    EXPECT_TRUE(variables.insert(setting.environment).second) << setting.environment;
    EXPECT_TRUE(setting.sentence.ends_with('.')) << setting.name;
    const auto groups = setting_groups();
    EXPECT_TRUE(std::any_of(groups.begin(), groups.end(), [&](const SettingGroup& group) {
      return group.name == group_of(setting);
    })) << setting.name;
  }
}

// Names that scripts and tests hold on to.
TEST_F(ConfigTest, PromisedVariablesAreRead) {
  std::set<std::string> variables;
  for (const Setting& setting : settings()) variables.insert(setting.environment);
  for (const char* name :
       {"LIMNER_EGRESS_ALLOW", "LIMNER_RATE_LIMIT", "LIMNER_WORKERS", "LIMNER_THREADS",
        "LIMNER_DATA_DIR", "LIMNER_MODEL", "LIMNER_MODELS", "BUCKET_ENDPOINT_URL",
        "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY"}) {
    EXPECT_TRUE(variables.count(name)) << name;
  }
}

TEST_F(ConfigTest, DefaultsAreGoodAndNamedAsSuch) {
  const CheckedConfig checked = check_config({});
  EXPECT_TRUE(checked.problems.empty());
  EXPECT_TRUE(checked.loaded.warnings.empty());
  for (const ShownSetting& setting : checked.loaded.settings) {
    EXPECT_EQ(setting.source, "default") << setting.name;
  }
  EXPECT_EQ(find(checked.loaded, "server.port").value, "8420");
  EXPECT_EQ(find(checked.loaded, "server.host").value, "\"127.0.0.1\"");
  EXPECT_EQ(find(checked.loaded, "server.body_limit").value, "\"32 MiB\"");
  EXPECT_EQ(find(checked.loaded, "egress_allow").value, "[]");
}

TEST_F(ConfigTest, OptionsWinOverVariablesTheyOverTheFileItOverDefaults) {
  sources_.environment = {{"LIMNER_SERVER_HOST", "10.0.0.1"}, {"LIMNER_SERVER_PORT", "7000"}};
  sources_.flags = {{"--port", "server.port", "6000"}};
  const auto checked = check(
      "workers = 3\n"
      "[server]\n"
      "host = \"::1\"\n"
      "port = 5000\n");
  ASSERT_TRUE(checked.problems.empty());
  EXPECT_EQ(checked.loaded.config.server.port, 6000);
  EXPECT_EQ(checked.loaded.config.server.host, "10.0.0.1");
  EXPECT_EQ(checked.loaded.config.workers, 3);
  EXPECT_EQ(find(checked.loaded, "server.port").source, "--port");
  EXPECT_EQ(find(checked.loaded, "server.host").source, "LIMNER_SERVER_HOST");
  EXPECT_EQ(find(checked.loaded, "workers").source, file_.string() + ":1");
  EXPECT_EQ(find(checked.loaded, "threads").source, "default");
}

TEST_F(ConfigTest, EveryKindOfValueIsReadFromTheFile) {
  const auto checked = check(R"(
rate_limit = false
egress_allow = ["127.0.0.0/8", "fd00::/8"]
drain_seconds = 5
[server]
body_limit = "1 GiB"
cors_origins = ["https://a.example.com"]
[log]
level = "debug"
format = "json"
[models]
folders = ["/a", "/b c"]
[adapters]
cache = 1024
[queue]
reserved_share = 0
[queue.relax]
weight = 2.5
[retention]
cold_days = 90
)");
  ASSERT_TRUE(checked.problems.empty()) << checked.problems[0].message;
  const ServiceConfig& config = checked.loaded.config;
  EXPECT_FALSE(config.rate_limit);
  ASSERT_EQ(config.egress_allow.size(), 2u);
  EXPECT_TRUE(config.egress_allow[0].contains(http::parse_address("127.1.2.3").value()));
  EXPECT_EQ(config.drain, Seconds{5});
  EXPECT_EQ(config.server.body_limit.count, std::uint64_t{1} << 30);
  EXPECT_EQ(config.log.level, LogLevel::kDebug);
  EXPECT_EQ(config.log.format, LogFormat::kJson);
  EXPECT_EQ(config.models.folders, (std::vector<fs::path>{"/a", "/b c"}));
  EXPECT_EQ(config.adapters.cache.count, 1024u);
  EXPECT_EQ(config.queue.reserved_share, 0.0);
  EXPECT_EQ(config.queue.relax.weight, 2.5);
  EXPECT_EQ(config.retention.cold, Days{90});
  EXPECT_EQ(find(checked.loaded, "egress_allow").value, R"(["127.0.0.0/8", "fd00::/8"])");
  EXPECT_EQ(find(checked.loaded, "adapters.cache").value, "\"1 KiB\"");
}

TEST_F(ConfigTest, EveryKindOfValueIsReadFromVariables) {
  sources_.environment = {{"LIMNER_RATE_LIMIT", "off"},
                          {"LIMNER_EGRESS_ALLOW", "127.0.0.0/8, 10.1.2.3"},
                          {"LIMNER_MODELS", "/a:/b c"},
                          {"LIMNER_SERVER_BODY_LIMIT", "3MiB"},
                          {"LIMNER_QUEUE_TURBO_WEIGHT", "12"},
                          {"LIMNER_LOG_LEVEL", "error"},
                          {"LIMNER_THREADS", ""}};
  const auto checked = check_config(sources_);
  ASSERT_TRUE(checked.problems.empty()) << checked.problems[0].message;
  const ServiceConfig& config = checked.loaded.config;
  EXPECT_FALSE(config.rate_limit);
  EXPECT_EQ(config.egress_allow.size(), 2u);
  EXPECT_EQ(config.models.folders, (std::vector<fs::path>{"/a", "/b c"}));
  EXPECT_EQ(config.server.body_limit.count, std::uint64_t{3} << 20);
  EXPECT_EQ(config.queue.turbo.weight, 12.0);
  EXPECT_EQ(config.log.level, LogLevel::kError);
  EXPECT_EQ(find(checked.loaded, "threads").source, "default") << "an empty variable is not set";
}

TEST_F(ConfigTest, EveryProblemIsToldAtOnceWithItsPlace) {
  sources_.environment = {{"LIMNER_WORKERS", "many"}};
  sources_.flags = {{"--port", "server.port", "http"}};
  EXPECT_EQ(problems("drain_secnods = 5\n"
                     "workers = 0\n"
                     "rate_limit = \"on\"\n"
                     "egress_allow = [\"10.0.0.0/33\"]\n"
                     "[server]\n"
                     "port = 70000\n"
                     "  body_limit = \"1 parsec\"\n"
                     "host = 127\n"
                     "cors_origins = [\"example.com\"]\n"
                     "[log]\n"
                     "level = \"warn\"\n"
                     "[sever]\n"
                     "port = 1\n"
                     "[queue.fast]\n"
                     "weight = nan\n"
                     "[models]\n"
                     "pinned = [1]\n"
                     "default = 1979-05-27\n"),
            (Problems{
                "limner.toml:1:1: there is no setting drain_secnods (did you mean drain_seconds?)",
                "limner.toml:2:1: workers: want a whole number from 1 to 64, got \"0\"",
                "limner.toml:3:1: rate_limit: want true or false, got a text",
                "limner.toml:4:1: egress_allow: " +
                    http::parse_address_ranges("10.0.0.0/33").error().message,
                "limner.toml:6:1: server.port: want a whole number from 0 to 65535, got \"70000\"",
                "limner.toml:7:3: server.body_limit: want bytes, or a number with KiB, MiB, GiB or "
                "TiB, got \"1 parsec\"",
                "limner.toml:8:1: server.host: want a text, got a whole number",
                "limner.toml:9:1: server.cors_origins: want an origin such as "
                "https://studio.example.com, or *, got \"example.com\"",
                "limner.toml:11:1: log.level: want debug, info, warning or error, got \"warn\"",
                "limner.toml:12:2: there is no table [sever] (did you mean server?)",
                "limner.toml:15:1: queue.fast.weight: want a number from 0.001 to 1000000, got "
                "\"nan\"",
                "limner.toml:17:1: models.pinned: want a list of texts, got a list with a whole "
                "number",
                "limner.toml:18:1: models.default: want a text, got a date or time",
                "LIMNER_WORKERS: workers: want a whole number from 1 to 64, got \"many\"",
                "--port: server.port: want a whole number from 0 to 65535, got \"http\"",
            }));
}

TEST_F(ConfigTest, AFileThatIsNoTomlIsToldWithItsPlace) {
  const auto all = problems("workers = 2\nport =\n");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_TRUE(all[0].starts_with("limner.toml:2:7: ")) << all[0];
  ASSERT_EQ(problems("workers = 2\nworkers = 3\n").size(), 1u);
  ASSERT_EQ(problems(std::string("workers = 2\0", 12)).size(), 1u);
  ASSERT_EQ(problems("host = \"\xff\"\n").size(), 1u);
  ASSERT_EQ(problems(std::string(2 << 20, '\n')).size(), 1u);
}

TEST_F(ConfigTest, AFileThatIsNotThereIsAProblem) {
  sources_.file = folder_ / "none.toml";
  const auto checked = check_config(sources_);
  ASSERT_EQ(checked.problems.size(), 1u);
  EXPECT_EQ(checked.problems[0].place, sources_.file->string());
}

TEST_F(ConfigTest, TheErrorIsTheFirstProblemAndACount) {
  sources_.environment = {{"LIMNER_WORKERS", "0"}, {"LIMNER_THREADS", "-1"}};
  const auto loaded = load_config(sources_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(loaded.error().message,
            "LIMNER_WORKERS: workers: want a whole number from 1 to 64, got \"0\" (and 1 more "
            "problem: limner config check)");
}

TEST_F(ConfigTest, SecretsInTheFileAreRefusedWithoutBeingRepeated) {
  const auto all = problems("[delivery]\nsecret_access_key = \"hunter2\"\n");
  EXPECT_EQ(all, (Problems{"limner.toml:2:1: delivery.secret_access_key: a secret does not belong "
                           "into this file; set the variable BUCKET_SECRET_ACCESS_KEY, or "
                           "delivery.secret_access_key_file to the path of a file that holds it"}));
}

TEST_F(ConfigTest, SecretsComeFromVariablesAndFilesAndAreNeverShown) {
  const fs::path key = write(folder_ / "key", "hunter2\n");
  const fs::path id = write(folder_ / "id", "lewis\r\n");
  sources_.environment = {{"LIMNER_DELIVERY_SUPABASE_KEY", "hunter3"},
                          {"BUCKET_ACCESS_KEY_ID_FILE", id.string()}};
  const auto checked = check("[delivery]\nsecret_access_key_file = \"" + key.string() + "\"\n");
  ASSERT_TRUE(checked.problems.empty()) << checked.problems[0].message;
  const DeliveryConfig& delivery = checked.loaded.config.delivery;
  EXPECT_EQ(delivery.secret_access_key.value, "hunter2");
  EXPECT_EQ(delivery.access_key_id.value, "lewis");
  EXPECT_EQ(delivery.supabase_key.value, "hunter3");
  for (const ShownSetting& setting : checked.loaded.settings) {
    EXPECT_EQ(setting.value.find("hunter"), std::string::npos) << setting.name;
  }
  EXPECT_EQ(find(checked.loaded, "delivery.supabase_key").value, "\"********\"");
  EXPECT_EQ(find(checked.loaded, "delivery.secret_access_key").source, file_.string() + ":2");
  EXPECT_EQ(find(checked.loaded, "telemetry.otlp_headers").value, "\"\"");
}

TEST_F(ConfigTest, SecretsThatCannotBeReadAreProblems) {
  sources_.environment = {{"BUCKET_ACCESS_KEY_ID_FILE", (folder_ / "none").string()},
                          {"LIMNER_DELIVERY_SUPABASE_KEY", "hunter3"},
                          {"LIMNER_DELIVERY_SUPABASE_KEY_FILE", file_.string()},
                          {"BUCKET_SECRET_ACCESS_KEY", "hunter\xff"}};
  const auto all = problems("");
  ASSERT_EQ(all.size(), 3u);
  for (const std::string& problem : all) EXPECT_EQ(problem.find("hunter"), std::string::npos);
}

TEST_F(ConfigTest, WhatBelongsTogetherIsLookedAtTogether) {
  const fs::path key = write(folder_ / "key.pem", "key");
  EXPECT_EQ(problems("[server]\ntls_key = \"" + key.string() + "\"\n"),
            (Problems{"server.tls_certificate: is not set, and server.tls_key wants it (variable "
                      "LIMNER_SERVER_TLS_CERTIFICATE)"}));
  EXPECT_EQ(problems("[delivery]\nstore = \"s3\"\n").size(), 3u);
  EXPECT_EQ(problems("[delivery]\nstore = \"supabase\"\nbucket = \"b\"\n").size(), 2u);
  const auto missing =
      problems("[server]\ntls_key = \"/none.pem\"\ntls_certificate = \"" + key.string() + "\"\n");
  ASSERT_EQ(missing.size(), 1u);
  EXPECT_EQ(missing[0], "limner.toml:2: server.tls_key: cannot read /none.pem");
}

TEST_F(ConfigTest, VariablesWithATypingErrorAreWarnedOf) {
  sources_.environment = {
      {"LIMNER_WORKRES", "2"}, {"LIMNER_PORT", "9000"}, {"LIMNER_CACHE", "/c"}, {"PATH", "/bin"}};
  const auto checked = check_config(sources_);
  ASSERT_EQ(checked.loaded.warnings.size(), 2u);
  EXPECT_EQ(checked.loaded.warnings[0].place, "LIMNER_PORT");
  EXPECT_EQ(checked.loaded.warnings[0].message,
            "is no variable that limner reads (did you mean LIMNER_SERVER_PORT?)");
  EXPECT_EQ(checked.loaded.warnings[1].place, "LIMNER_WORKRES");
  EXPECT_NE(checked.loaded.warnings[1].message.find("LIMNER_WORKERS"), std::string::npos);
}

TEST_F(ConfigTest, TheDocumentedFileIsCurrent) {
  std::ifstream file(LIMNER_SOURCE_DIR "/docs/limner.toml", std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), documented_config()) << "limner config example > docs/limner.toml";
}

TEST_F(ConfigTest, TheDocumentedFileHasEverySettingWithItsDefault) {
  std::istringstream lines(documented_config());
  std::string toml;
  for (std::string line; std::getline(lines, line); toml += "\n") {
    const bool setting = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    toml += setting ? line.substr(1) : line;
    EXPECT_LE(line.size(), 100u);
  }
  const auto checked = check(toml);
  EXPECT_TRUE(checked.problems.empty()) << checked.problems[0].message;
  const auto defaults = check_config({});
  ASSERT_EQ(checked.loaded.settings.size(), defaults.loaded.settings.size());
  for (std::size_t i = 0; i < defaults.loaded.settings.size(); ++i) {
    const ShownSetting &one = checked.loaded.settings[i], &other = defaults.loaded.settings[i];
    EXPECT_EQ(one.value, other.value) << one.name;
    EXPECT_EQ(one.source == "default", settings()[i].secret()) << one.name;
  }
}

}  // namespace
}  // namespace limner::platform
