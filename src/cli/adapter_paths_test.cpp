#include "cli/adapter_paths.h"

#include <gtest/gtest.h>

namespace limner::cli {
namespace {

TEST(AdapterUrl, IsToldFromAPath) {
  EXPECT_TRUE(is_url("https://host/x"));
  EXPECT_TRUE(is_url("HTTP://host"));
  for (const char* text : {"", "style", "loras/x.safetensors", "./https://x", "https:/x",
                           "//host/x", "xhttps://x", "C:/x"}) {
    EXPECT_FALSE(is_url(text)) << text;
  }
  EXPECT_FALSE(is_url("https:" + std::string(1'000'000, 'a')));
}

TEST(AdapterUrl, WeightsAreToldFromTheUrlsOwnColons) {
  const auto weight = [](const char* text, const char* url) {
    const auto adapter = parse_adapter_url(text).value();
    EXPECT_EQ(adapter.url, url) << text;
    return adapter.weight;
  };
  EXPECT_EQ(weight("https://h/x.safetensors", "https://h/x.safetensors"), "");
  EXPECT_EQ(weight("https://h/x.safetensors:0.8", "https://h/x.safetensors"), "0.8");
  EXPECT_EQ(weight("https://h/x:-.5", "https://h/x"), "-.5");
  EXPECT_EQ(weight("https://h:8443/x", "https://h:8443/x"), "");
  EXPECT_EQ(weight("https://h:8443", "https://h:8443"), "");
  EXPECT_EQ(weight("https://[2001:db8::1]/x:2", "https://[2001:db8::1]/x"), "2");
  EXPECT_EQ(weight("https://h:8443/models/123:0.8", "https://h:8443/models/123"), "0.8");
  EXPECT_EQ(weight("https://h/x?a=b:c", "https://h/x?a=b:c"), "");
  EXPECT_EQ(weight("https://h/x?a=b:c=d", "https://h/x?a=b:c=d"), "");
  EXPECT_EQ(weight("https://h/x?t=12:30", "https://h/x?t=12"), "30") << "the weight comes last";
  EXPECT_EQ(weight("https://h/x:unet=0.8,te=0.5,blocks=down.1:0.5/mid:1", "https://h/x"),
            "unet=0.8,te=0.5,blocks=down.1:0.5/mid:1");
  EXPECT_EQ(weight("https://h/a:b/x:te2=1", "https://h/a:b/x"), "te2=1");
}

TEST(AdapterUrl, CarriesAHash) {
  const std::string hash(64, 'A');
  const auto adapter = parse_adapter_url("https://h/x#sha256=" + hash + ":0.5").value();
  EXPECT_EQ(adapter.url, "https://h/x");
  EXPECT_EQ(adapter.sha256, hash);
  EXPECT_EQ(adapter.weight, "0.5");
  for (const char* text : {"https://h/x#sha256=12", "https://h/x#md5=12", "https://h/x#part"}) {
    EXPECT_FALSE(parse_adapter_url(text).ok()) << text;
  }
  EXPECT_FALSE(parse_adapter_url("https://user@h/x:1").ok());
}

}  // namespace
}  // namespace limner::cli
