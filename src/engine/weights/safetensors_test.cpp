#include "engine/weights/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "engine/weights/file_kind.h"
#include "engine/weights/safetensors_header.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::little_endian;
using testing::raw_safetensors;
using testing::TemporaryFolder;

class Safetensors : public ::testing::Test {
 protected:
  // Writes the bytes and opens them; the error's message, or "" when the file was accepted.
  std::string open(std::string_view bytes, ErrorCode want = ErrorCode::kInvalidModel) {
    const auto result = SafetensorsFile::open(folder_.write("unet/model.safetensors", bytes));
    if (result.ok()) return "";
    const std::string& message = result.error().message;
    EXPECT_EQ(name(result.error().code), name(want)) << message;
    EXPECT_EQ(message.find("unet/model.safetensors: "), 0u) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }

  void expect_refused(std::string_view bytes, std::string_view reason) {
    const std::string message = open(bytes);
    EXPECT_NE(message.find(reason), std::string::npos)
        << "got: " << message << "\nwant: " << reason;
  }

  TemporaryFolder folder_;
};

// One tensor 'a' with the given fields and `bytes` bytes of data.
std::string one(const std::string& fields, std::size_t bytes) {
  return raw_safetensors("{\"a\":{" + fields + "}}", std::string(bytes, '\1'));
}

TEST_F(Safetensors, ReadsTensorsAndMetadata) {
  const std::string bytes = raw_safetensors(
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}   )",
      std::string("ABCDEFGHIJKLMNOP"));
  const auto file = SafetensorsFile::open(folder_.write("x.safetensors", bytes));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->metadata().at("format"), "pt");
  ASSERT_EQ(file->tensors().size(), 2u);
  const TensorView& w = file->tensors().at("w");
  EXPECT_EQ(w.dtype, DType::kF16);
  EXPECT_EQ(w.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(w.bytes.data()), w.bytes.size()),
            "ABCDEFGHIJKL");
  const TensorView& b = file->tensors().at("b");
  EXPECT_TRUE(b.shape.empty());
  EXPECT_EQ(std::to_integer<char>(b.bytes[0]), 'M');
  EXPECT_EQ(file->file_size(), bytes.size());
}

TEST_F(Safetensors, AcceptsWhatTheReferenceAccepts) {
  EXPECT_EQ(open(raw_safetensors("{}")), "");
  EXPECT_EQ(open(raw_safetensors("{}      ")), "");
  EXPECT_EQ(open(raw_safetensors(R"({"__metadata__":{}})")), "");
  // Tensors without elements share an offset.
  EXPECT_EQ(open(raw_safetensors(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                                 R"("b":{"dtype":"F32","shape":[5,0],"data_offsets":[0,0]},)"
                                 R"("c":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("d":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})",
                                 "x")),
            "");
  // Any order of keys, and tensors not in the order of their offsets.
  EXPECT_EQ(open(raw_safetensors(R"({"b":{"data_offsets":[1,2],"shape":[1],"dtype":"U8"},)"
                                 R"("a":{"shape":[1],"data_offsets":[0,1],"dtype":"I8"}})",
                                 "xy")),
            "");
  EXPECT_EQ(open(one(R"("dtype":"F4","shape":[3,2],"data_offsets":[0,3])", 3)), "");
  EXPECT_EQ(open(one(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3])", 3)), "");
}

TEST_F(Safetensors, KnowsEveryDtypeAndItsWidth) {
  const std::vector<std::pair<const char*, std::size_t>> all = {
      {"BOOL", 8},    {"U8", 8},          {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8},
      {"F8_E8M0", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8}, {"I16", 16},    {"U16", 16},
      {"F16", 16},    {"BF16", 16},       {"I32", 32},        {"U32", 32},    {"F32", 32},
      {"I64", 64},    {"U64", 64},        {"F64", 64},        {"C64", 64},    {"F4", 4},
      {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const auto& [name_text, width] : all) {
    const auto dtype = dtype_from_name(name_text);
    ASSERT_TRUE(dtype) << name_text;
    EXPECT_EQ(bits(*dtype), width) << name_text;
    EXPECT_EQ(name(*dtype), name_text);
    const std::string size = std::to_string(width);  // 8 elements fill `width` bytes
    EXPECT_EQ(open(one(std::string("\"dtype\":\"") + name_text +
                           "\",\"shape\":[8],\"data_offsets\":[0," + size + "]",
                       width)),
              "");
  }
  expect_refused(one(R"("dtype":"F128","shape":[1],"data_offsets":[0,16])", 16),
                 "unknown dtype 'F128'");
  expect_refused(one(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])", 4),
                 "unknown dtype 'f32'");
}

TEST_F(Safetensors, RefusesLengthsThatLie) {
  expect_refused("", "too few");
  expect_refused("1234567", "too few");
  expect_refused(little_endian(3) + "{}", "cut off");
  expect_refused(little_endian(1 << 20) + "{}", "cut off");
  expect_refused(little_endian(100'000'001) + "{}", "the format allows 100000000");
  expect_refused(little_endian(~std::uint64_t{0}) + "{}", "the format allows");
  expect_refused(little_endian(~std::uint64_t{7}) + "{}", "the format allows");
  expect_refused(little_endian(std::uint64_t{1} << 63) + "{}", "the format allows");
  expect_refused(little_endian(0) + "{}", "does not begin with '{'");
}

TEST_F(Safetensors, RefusesHeadersThatAreNoProperJson) {
  expect_refused(raw_safetensors(" {}"), "does not begin with '{'");
  expect_refused(raw_safetensors("\xef\xbb\xbf{}"), "does not begin with '{'");
  expect_refused(raw_safetensors("[]"), "does not begin with '{'");
  expect_refused(raw_safetensors("{"), "not valid JSON");
  expect_refused(raw_safetensors("{}{}"), "not valid JSON");
  expect_refused(raw_safetensors(std::string("{}\0", 3)), "zero byte");
  expect_refused(raw_safetensors(std::string("{}\0{\"hidden\":1}", 15)), "zero byte");
  expect_refused(raw_safetensors("{\"a\xff\":1}"), "not valid JSON");
  expect_refused(raw_safetensors("{\"\\ud800\":{}}"), "not valid JSON");
  expect_refused(raw_safetensors("{/* */}"), "not valid JSON");
  expect_refused(raw_safetensors(R"({"a\u0007":{}})"), "control characters");
  expect_refused(raw_safetensors(R"({"a\u0000":{}})"), "control characters");
}

TEST_F(Safetensors, RefusesEntriesOfTheWrongKind) {
  for (const char* value : {"1", "null", "true", "\"x\"", "[]", "1.5", "-1"}) {
    expect_refused(raw_safetensors(std::string("{\"a\":") + value + "}"), "wrong kind");
  }
  expect_refused(one(R"("dtype":1,"shape":[],"data_offsets":[0,4])", 4), "wrong kind");
  expect_refused(one(R"("dtype":"F32","shape":1,"data_offsets":[0,4])", 4), "shape");
  expect_refused(one(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])", 4), "whole numbers");
  expect_refused(one(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])", 4), "whole numbers");
  expect_refused(one(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])", 4), "whole numbers");
  expect_refused(one(R"("dtype":"F32","shape":[{}],"data_offsets":[0,4])", 4), "whole numbers");
  expect_refused(one(R"("dtype":"F32","shape":[1],"data_offsets":4)", 4), "two whole numbers");
  expect_refused(one(R"("dtype":"F32","shape":[1],"data_offsets":[0])", 4), "wants two");
  expect_refused(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])", 4), "more than two");
  expect_refused(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,"4"])", 4),
                 "two whole numbers");
  expect_refused(one(R"("shape":[1],"data_offsets":[0,4])", 4), "no dtype");
  expect_refused(one(R"("dtype":"F32","data_offsets":[0,4])", 4), "no shape");
  expect_refused(one(R"("dtype":"F32","shape":[1])", 0), "no data_offsets");
  expect_refused(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1)", 4),
                 "unknown field 'x'");
  expect_refused(raw_safetensors(R"({"__metadata__":[]})"), "__metadata__");
  expect_refused(raw_safetensors(R"({"__metadata__":{"a":1}})"), "__metadata__");
  expect_refused(raw_safetensors(R"({"__metadata__":{"a":{}}})"), "__metadata__");
  expect_refused(raw_safetensors(R"({"__metadata__":{"a":null}})"), "__metadata__");
}

TEST_F(Safetensors, RefusesDuplicateKeysEverywhere) {
  expect_refused(raw_safetensors(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                 "xy"),
                 "'a' occurs twice");
  // The same name, once escaped.
  expect_refused(raw_safetensors(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                 "xy"),
                 "'a' occurs twice");
  expect_refused(one(R"("dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1])", 1),
                 "dtype twice");
  expect_refused(one(R"("dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1])", 1),
                 "shape twice");
  expect_refused(one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1])", 1),
                 "data_offsets twice");
  expect_refused(raw_safetensors(R"({"__metadata__":{},"__metadata__":{}})"),
                 "__metadata__ occurs twice");
  expect_refused(raw_safetensors(R"({"__metadata__":{"k":"1","k":"2"}})"), "'k' occurs twice");
}

TEST_F(Safetensors, RefusesOffsetsThatLie) {
  const auto offsets = [](const std::string& begin, const std::string& end) {
    return R"("dtype":"U8","shape":[4],"data_offsets":[)" + begin + "," + end + "]";
  };
  expect_refused(one(offsets("4", "0"), 4), "before its begin");
  expect_refused(one(offsets("-4", "0"), 4), "negative");
  expect_refused(one(offsets("0", "-1"), 4), "negative");
  expect_refused(one(offsets("0", "18446744073709551615"), 4), "cut off");
  expect_refused(one(offsets("18446744073709551612", "18446744073709551615"), 4), "hole");
  expect_refused(one(offsets("0", "18446744073709551620"), 4), "two whole numbers");  // 2^64 + 4
  expect_refused(one(offsets("0", "4"), 3), "cut off");
  expect_refused(one(offsets("0", "4"), 5), "1 bytes follow the last tensor");
  expect_refused(one(offsets("1", "5"), 5), "a hole before it");
  expect_refused(one(offsets("0", "5"), 5), "5 bytes by its data_offsets, but 4 by its shape");
  expect_refused(raw_safetensors("{}", "x"), "1 bytes follow");
}

TEST_F(Safetensors, RefusesOverlapsAndHoles) {
  const auto two = [](const char* first, const char* second) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + first +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
  };
  expect_refused(raw_safetensors(two("[0,4]", "[0,4]"), "1234"), "overlap");
  expect_refused(raw_safetensors(two("[0,4]", "[2,6]"), "123456"), "overlap");
  expect_refused(raw_safetensors(two("[0,4]", "[5,9]"), "123456789"), "hole");
  // One copy of the data used many times: a small file that claims to be a huge one.
  std::string header = "{";
  for (int i = 0; i < 1000; ++i) {
    header += fmt::format(R"({}"t{}":{{"dtype":"F32","shape":[1024],"data_offsets":[0,4096]}})",
                          i ? "," : "", i);
  }
  expect_refused(raw_safetensors(header + "}", std::string(4096, 'x')), "overlap");
}

TEST_F(Safetensors, RefusesShapesWhoseSizeWrapsAround) {
  // 4194305 * 4194305 * 211106198978564 = 4 modulo 2^64.
  expect_refused(
      one(R"("dtype":"U8","shape":[4194305,4194305,211106198978564],"data_offsets":[0,4])", 4),
      "overflows");
  expect_refused(one(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])", 4),
                 "overflows");
  expect_refused(one(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])", 0),
                 "overflows");
  expect_refused(one(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4])", 4),
                 "larger than 2^63");
  expect_refused(one(R"("dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4])", 4),
                 "whole numbers");
  expect_refused(one(R"("dtype":"U8","shape":[-1],"data_offsets":[0,4])", 4), "negative");
  // A zero must not hide an overflow of the others, which strides would meet later.
  expect_refused(
      one(R"("dtype":"U8","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0])",
          0),
      "overflows");
  expect_refused(
      one(R"("dtype":"U8","shape":[4611686018427387904,4611686018427387904,0],"data_offsets":[0,0])",
          0),
      "overflows");
  expect_refused(one(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])", 1), "whole bytes");
  expect_refused(one(R"("dtype":"F6_E3M2","shape":[1],"data_offsets":[0,1])", 1), "whole bytes");
  expect_refused(one(R"("dtype":"F16","shape":[4],"data_offsets":[0,4])", 4),
                 "4 bytes by its data_offsets, but 8");
}

TEST_F(Safetensors, RefusesHeadersMadeToCostMemoryOrTime) {
  std::string many = "{";
  for (int i = 0; i < 60'000; ++i) {
    many += fmt::format(R"({}"t{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                        i ? "," : "", i);
  }
  const auto begin = std::chrono::steady_clock::now();
  expect_refused(raw_safetensors(many + "}"), "more than 50000 tensors");
  // The header's share of the file.
  expect_refused(raw_safetensors(std::string("{") + std::string(5 << 20, ' ') + "}"),
                 "more than a quarter");
  EXPECT_EQ(open(raw_safetensors(std::string("{") + std::string(3 << 20, ' ') + "}")), "");
  expect_refused(raw_safetensors(std::string("{\"") + std::string(5000, 'n') + "\":{}}"),
                 "longer than 1024 bytes");
  expect_refused(raw_safetensors(std::string("{\"a\":") + std::string(1 << 20, '[')), "wrong kind");
  std::string nested;
  for (int i = 0; i < 200'000; ++i) nested += "{\"a\":";
  expect_refused(raw_safetensors(nested), "unknown field");
  expect_refused(
      one(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1])", 1),
      "more than 16 dimensions");
  std::string metadata = R"({"__metadata__":{)";
  for (int i = 0; i < 10'001; ++i) metadata += fmt::format(R"({}"{}":"")", i ? "," : "", i);
  expect_refused(raw_safetensors(metadata + "}}"), "more than 10000 entries");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(Safetensors, EveryCutOfAFileIsRefused) {
  const std::string whole =
      raw_safetensors(R"({"__metadata__":{"format":"pt"},)"
                      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                      "12345678");
  ASSERT_EQ(open(whole), "");
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(open(whole.substr(0, size)), "") << size;
  EXPECT_NE(open(whole + "x"), "");
}

TEST_F(Safetensors, NamesWhatAForeignFileIs) {
  const auto refused_as = [&](std::string_view bytes, ErrorCode code, std::string_view reason) {
    const std::string message = open(bytes, code);
    EXPECT_NE(message.find(reason), std::string::npos) << message;
  };
  const std::string zip = std::string("PK\x03\x04\x14\x00\x08\x08", 8) + std::string(100, 'x');
  refused_as(zip, ErrorCode::kUnsupported, "pickle");
  refused_as(std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9", 9) + std::string(100, 'x'),
             ErrorCode::kUnsupported, "convert it to safetensors");
  refused_as(std::string("GGUF\3\0\0\0xxxxxxxxxxxxxxx", 23), ErrorCode::kUnsupported, "GGUF");
  refused_as("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
             ErrorCode::kInvalidModel, "git lfs pull");
  refused_as("<!DOCTYPE html><html>Not found</html>", ErrorCode::kInvalidModel, "web page");
  // Content decides, not the name: safetensors is read whatever it is called, nonsense called .ckpt
  // is refused.
  EXPECT_TRUE(SafetensorsFile::open(folder_.write("good.ckpt", raw_safetensors("{}"))).ok());
  const auto bad = SafetensorsFile::open(folder_.write("bad.CKPT", "nonsense nonsense"));
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message.find("pickle"), std::string::npos);
}

TEST_F(Safetensors, RefusesWhatIsNoFile) {
  const auto missing = SafetensorsFile::open(folder_.path() / "none.safetensors");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(SafetensorsFile::open(folder_.path()).ok());
  const auto fifo = folder_.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(SafetensorsFile::open(fifo).ok());  // and returns at once
  EXPECT_FALSE(SafetensorsFile::open("/dev/zero").ok());
}

TEST_F(Safetensors, NoticesAFileThatChangesWhileItIsMapped) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[65536],"data_offsets":[0,65536]}})";
  const auto path =
      folder_.write("x.safetensors", raw_safetensors(header, std::string(65536, 'x')));
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok());
  const TensorView& tensor = file->tensors().at("a");
  ASSERT_TRUE(file->prefetch(tensor).ok());
  std::filesystem::resize_file(path, 100);
  const Result<void> cut = file->prefetch(tensor);
  ASSERT_FALSE(cut.ok());
  EXPECT_NE(cut.error().message.find("was changed"), std::string::npos);
  std::filesystem::resize_file(path, 8 + header.size() + 65536);  // the old size, other bytes
  EXPECT_FALSE(file->prefetch(tensor).ok());
}

TEST_F(Safetensors, AFileReplacedByRenameGoesOnUnharmed) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  const auto path = folder_.write("x.safetensors", raw_safetensors(header, "1234"));
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::rename(folder_.write("y", "short"), path);
  const TensorView& tensor = file->tensors().at("a");
  EXPECT_TRUE(file->prefetch(tensor).ok());
  EXPECT_EQ(std::to_integer<char>(tensor.bytes[3]), '4');
}

TEST_F(Safetensors, ReadsASparseFileOf40GigabytesWithoutTouchingIt) {
  const std::uint64_t size = std::uint64_t{40} << 30;
  const std::string header = R"({"a":{"dtype":"F16","shape":[)" + std::to_string(size / 2) +
                             R"(],"data_offsets":[0,)" + std::to_string(size) + "]}}";
  const auto path = folder_.write("big.safetensors", raw_safetensors(header));
  std::error_code error;
  std::filesystem::resize_file(path, 8 + header.size() + size, error);
  if (error) GTEST_SKIP() << "no sparse files of that size here";
  const auto begin = std::chrono::steady_clock::now();
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->tensors().at("a").bytes.size(), size);
  EXPECT_EQ(std::to_integer<int>(file->tensors().at("a").bytes.back()), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST_F(Safetensors, ReleasedPagesReadTheSameAgain) {
  const std::string data(1 << 20, 'q');
  const auto path = folder_.write(
      "x.safetensors",
      raw_safetensors(R"({"a":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]}})",
                      data));
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok());
  const TensorView& tensor = file->tensors().at("a");
  const auto same = [&] { return std::memcmp(tensor.bytes.data(), data.data(), data.size()) == 0; };
  EXPECT_TRUE(same());
  file->release(tensor);
  EXPECT_TRUE(same());
}

}  // namespace
}  // namespace limner::engine::weights
