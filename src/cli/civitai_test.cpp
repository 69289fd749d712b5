#include "cli/civitai.h"

#include <gtest/gtest.h>

namespace limner::cli {
namespace {

using platform::http::parse_url;
using platform::http::Url;

const Url kCivitai = parse_url("https://civitai.com").value();

std::string version(const char* link) {
  return civitai_version(parse_url(link).value(), kCivitai).value_or("");
}

TEST(Civitai, BothFormsOfLinksNameAVersion) {
  EXPECT_EQ(version("https://civitai.com/api/download/models/128713"), "128713");
  EXPECT_EQ(version("https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor"),
            "128713");
  EXPECT_EQ(version("https://civitai.com/models/4384?modelVersionId=128713"), "128713");
  EXPECT_EQ(version("https://www.civitai.com/models/4384/dreamshaper?modelVersionId=128713"),
            "128713");
  for (const char* link :
       {"https://civitai.com/models/4384", "https://civitai.com/",
        "https://civitai.com/api/download", "https://civitai.com/api/download/models/12x",
        "https://evil.com/api/download/models/1",
        "https://civitai.com.evil.com/api/download/models/1",
        "https://civitai.com:8443/api/download/models/1",
        "https://civitai.com/models/1?modelVersionId=../../x",
        "https://civitai.com/user?modelVersionId=1"}) {
    EXPECT_EQ(version(link), "") << link;
  }
}

// The shape of GET /api/v1/model-versions/ID, cut to what is read.
const char* const kDescription = R"({"id": 1, "files": [
  {"name": "a.ckpt", "type": "Model", "primary": false, "metadata": {"format": "PickleTensor"},
   "hashes": {"SHA256": "00"}, "downloadUrl": "https://civitai.com/pickle"},
  {"name": "v.safetensors", "type": "VAE", "metadata": {"format": "SafeTensor"},
   "hashes": {"SHA256": "01"}, "downloadUrl": "https://civitai.com/vae"},
  {"name": "full.safetensors", "type": "Model",
   "metadata": {"format": "SafeTensor", "size": "full", "fp": "fp32"},
   "hashes": {"SHA256": "02"}, "downloadUrl": "https://civitai.com/full"},
  {"name": "pruned.safetensors", "type": "Pruned Model", "primary": true,
   "metadata": {"format": "SafeTensor", "size": "pruned", "fp": "fp16"},
   "hashes": {"SHA256": "03"}, "downloadUrl": "https://civitai.com/pruned"}]})";

TEST(Civitai, TheLinksQueryChoosesAmongAVersionsFiles) {
  const auto chosen = [](const std::string& query) {
    const auto file = choose_civitai_file(
        kDescription, parse_url("https://civitai.com/api/download/models/1" + query).value());
    return file.ok() ? file->name + " " + file->sha256 : file.error().message;
  };
  EXPECT_EQ(chosen(""), "pruned.safetensors 03") << "the primary one";
  EXPECT_EQ(chosen("?type=Model&format=SafeTensor&size=full&fp=fp32"), "full.safetensors 02");
  EXPECT_EQ(chosen("?type=model"), "full.safetensors 02");
  EXPECT_EQ(chosen("?type=Pruned%20Model"), "pruned.safetensors 03");
  EXPECT_EQ(chosen("?type=VAE&token=secret"), "v.safetensors 01");
  EXPECT_NE(chosen("?format=PickleTensor").find("none of this version's files"), std::string::npos);
  EXPECT_NE(chosen("?fp=fp8").find("full.safetensors"), std::string::npos) << "names what there is";
}

TEST(Civitai, WhatIsNoDescriptionIsRefused) {
  const Url link = parse_url("https://civitai.com/api/download/models/1").value();
  for (const char* text : {"", "{", "[]", "{}", R"({"files": 1})", R"({"files": []})",
                           R"({"files": [1, {}, {"name": 3}]})", "<html>"}) {
    EXPECT_FALSE(choose_civitai_file(text, link).ok()) << text;
  }
}

TEST(Civitai, FileNamesOfStrangersAreMadePlain) {
  EXPECT_EQ(safe_file_name("a b.safetensors"), "a_b.safetensors");
  EXPECT_EQ(safe_file_name("../../etc/passwd"), "_.._etc_passwd.safetensors");
  EXPECT_EQ(safe_file_name("..\\x"), "_x.safetensors");
  EXPECT_EQ(safe_file_name(".bashrc"), "bashrc.safetensors");
  EXPECT_EQ(safe_file_name(""), "model.safetensors");
  EXPECT_EQ(safe_file_name("123"), "123.safetensors");
  EXPECT_EQ(safe_file_name("x\n\x01y"), "x__y.safetensors");
  EXPECT_LE(safe_file_name(std::string(5000, 'a')).size(), 255u);
}

}  // namespace
}  // namespace limner::cli
