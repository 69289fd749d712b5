// What can be said of uploads in parts without a server; tests/services has the rest.
#include "delivery/s3_multipart.h"

#include <gtest/gtest.h>

#include <deque>

namespace limner::delivery {
namespace {

using platform::http::Reply;
using platform::http::Request;

// Gives the answers one after the other and keeps what it was asked.
class ScriptedExchange final : public platform::http::Exchange {
 public:
  Result<Reply> send(const Request& request) override {
    urls.push_back(request.url.target);
    bodies.emplace_back(request.body.begin(), request.body.end());
    if (replies.empty()) return Error{ErrorCode::kInternal, "not expected"};
    Reply reply = replies.front();
    replies.pop_front();
    return reply;
  }
  void answer(const std::string& body, int status = 200) {
    Reply reply{.status = status};
    reply.body.assign(body.begin(), body.end());
    replies.push_back(std::move(reply));
  }
  std::deque<Reply> replies;
  std::vector<std::string> urls, bodies;
};

class Multipart : public testing::Test {
 protected:
  static S3Options options() {
    S3Options options;
    options.endpoint = "https://s3.example.com";
    options.bucket = "volume";
    options.credentials = {"id", "secret", ""};
    return options;
  }
  ScriptedExchange exchange_;
  platform::ManualClock clock_;
  std::unique_ptr<S3Client> client_ = S3Client::make(options(), exchange_, clock_).value();
  S3Multipart uploads_{*client_};
  const S3Upload upload_{.key = "a/b", .id = "u"};
};

TEST_F(Multipart, PartsAreListedPageByPage) {
  exchange_.answer(
      "<ListPartsResult><PartNumberMarker>0</PartNumberMarker><IsTruncated>true</IsTruncated>"
      "<Part><PartNumber>1</PartNumber><ETag>&quot;x&quot;</ETag><Size>5242880</Size></Part>"
      "<Part><PartNumber>3</PartNumber><ETag>y</ETag><Size>7</Size></Part></ListPartsResult>");
  exchange_.answer(
      "<ListPartsResult><IsTruncated>false</IsTruncated>"
      "<Part><PartNumber>4</PartNumber><ETag>z</ETag><Size>9</Size></Part></ListPartsResult>");
  const auto parts = uploads_.parts(upload_);
  ASSERT_TRUE(parts.ok()) << parts.error().message;
  ASSERT_EQ(parts->size(), 3u);
  EXPECT_EQ(parts->at(0).tag, "\"x\"");
  EXPECT_EQ(parts->at(0).bytes, 5242880u);
  EXPECT_EQ(parts->at(2).number, 4);
  EXPECT_NE(exchange_.urls.at(1).find("part-number-marker=3"), std::string::npos);
}

TEST_F(Multipart, AListThatSaysThereIsMoreButBringsNoneEnds) {
  exchange_.answer("<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>");
  EXPECT_TRUE(uploads_.parts(upload_).value().empty());
}

TEST_F(Multipart, APartWithoutASizeIsAnError) {
  exchange_.answer("<ListPartsResult><Part><PartNumber>1</PartNumber></Part></ListPartsResult>");
  EXPECT_EQ(uploads_.parts(upload_).error().code, ErrorCode::kIo);
}

TEST_F(Multipart, AnUploadThatTheServerDoesNotKnowIsNotFound) {
  exchange_.answer("<Error><Code>NoSuchUpload</Code></Error>", 404);
  EXPECT_EQ(uploads_.parts(upload_).error().code, ErrorCode::kNotFound);
}

TEST_F(Multipart, AnAnswerWithoutAnIdBeginsNothing) {
  exchange_.answer("<html>welcome</html>");
  EXPECT_EQ(uploads_.begin("a/b", "x/y", "00").error().code, ErrorCode::kIo);
}

TEST_F(Multipart, CompletingNamesEveryPart) {
  exchange_.answer("<CompleteMultipartUploadResult/>");
  ASSERT_TRUE(uploads_.complete(upload_, {{1, 5, "\"x\""}, {2, 3, "a<b"}}).ok());
  EXPECT_EQ(exchange_.bodies.at(0),
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part>"
            "<Part><PartNumber>2</PartNumber><ETag>a&lt;b</ETag></Part></CompleteMultipartUpload>");
}

}  // namespace
}  // namespace limner::delivery
