// A server that speaks TLS, against OpenSSL's client.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "gateway/http/raw_client.h"
#include "gateway/http/server.h"

namespace limner::gateway::http {
namespace {

namespace asio = boost::asio;

template <typename T, void (*release)(T*)>
struct Release {
  void operator()(T* thing) const { release(thing); }
};

// A key and a certificate for it, signed by itself.
void write_certificate(const std::filesystem::path& certificate, const std::filesystem::path& key) {
  const std::unique_ptr<EVP_PKEY, Release<EVP_PKEY, EVP_PKEY_free>> pair(EVP_EC_gen("P-256"));
  const std::unique_ptr<X509, Release<X509, X509_free>> made(X509_new());
  X509_set_version(made.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -60);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), 3600);
  X509_NAME* subject = X509_get_subject_name(made.get());
  const std::string host = "localhost";
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(host.c_str()), -1, -1, 0);
  X509_set_issuer_name(made.get(), subject);
  X509_set_pubkey(made.get(), pair.get());
  X509_sign(made.get(), pair.get(), EVP_sha256());
  std::FILE* file = std::fopen(certificate.c_str(), "w");
  PEM_write_X509(file, made.get());
  std::fclose(file);
  file = std::fopen(key.c_str(), "w");
  PEM_write_PrivateKey(file, pair.get(), nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
}

boost::asio::awaitable<Response> hello(Request& request) {
  Response response;
  if (request.read_body) request.body = co_await request.read_body(1 << 20);
  response.body = "hello " + request.body;
  co_return response;
}

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    std::string name = std::filesystem::temp_directory_path() / "limner-tls-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    write_certificate(certificate(), key());
  }
  ~TlsTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path certificate() const { return folder_ / "certificate.pem"; }
  std::filesystem::path key() const { return folder_ / "key.pem"; }
  ServerOptions options() const {
    ServerOptions options;
    options.certificate = certificate();
    options.private_key = key();
    return options;
  }

  // A client that has shaken hands.
  struct Client {
    explicit Client(const Server& server) : stream(io, context) {
      stream.next_layer().connect({asio::ip::address_v4::loopback(), server.port()});
      stream.handshake(asio::ssl::stream_base::client);
    }
    void send(std::string_view bytes) { asio::write(stream, asio::buffer(bytes)); }
    std::string read_to(std::string_view end) {
      asio::read_until(stream, asio::dynamic_buffer(got), end);
      return std::exchange(got, {});
    }
    asio::ssl::context context{asio::ssl::context::tls_client};
    asio::io_context io{};
    asio::ssl::stream<asio::ip::tcp::socket> stream;
    std::string got{};
  };

  // What the server answers to `bytes`, and how the connection ended.
  std::pair<std::string, boost::system::error_code> ask(const Server& server, std::string bytes,
                                                        int newest = TLS1_3_VERSION) {
    asio::ssl::context context(asio::ssl::context::tls_client);
    SSL_CTX_set_security_level(context.native_handle(), 0);  // lets old versions be asked for
    SSL_CTX_set_max_proto_version(context.native_handle(), newest);
    context.load_verify_file(certificate());
    context.set_verify_mode(asio::ssl::verify_peer);
    asio::io_context io;
    asio::ssl::stream<asio::ip::tcp::socket> stream(io, context);
    stream.next_layer().connect({asio::ip::address_v4::loopback(), server.port()});
    boost::system::error_code failed;
    std::string answer;
    stream.handshake(asio::ssl::stream_base::client, failed);
    if (failed) return {answer, failed};
    asio::write(stream, asio::buffer(bytes), failed);
    asio::read(stream, asio::dynamic_buffer(answer), failed);
    return {answer, failed};
  }

  NoLog log_;
  std::filesystem::path folder_;
};

TEST_F(TlsTest, AnswersAndSaysGoodbye) {
  Server server(options(), hello, log_);
  ASSERT_TRUE(server.start().ok());
  const std::string body(200'000, 'x');
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const auto [bytes, ending] = ask(
        server,
        "POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n" + body,
        version);
    // Not truncated: the server sent TLS's close_notify.
    EXPECT_EQ(ending, asio::error::eof) << ending.message();
    const auto answers = parse_answers(bytes);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].body, "hello " + body);
  }
}

TEST_F(TlsTest, ServesManyRequestsOfAConnectionAndWaitsForASlowReader) {
  Server server(options(), hello, log_);
  ASSERT_TRUE(server.start().ok());
  Client client(server);
  for (int i = 0; i < 50; ++i) {
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");
    client.send("ab");
    EXPECT_NE(client.read_to("hello ab").find("200 OK"), std::string::npos);
  }
  // More than the buffers of both sides hold: the server has to wait with a write begun.
  const std::string body(1'000'000, 'y');
  client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + body);
  for (int i = 0; i < 5; ++i)
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nz");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_NE(client.read_to("hello " + body).find("200 OK"), std::string::npos);
  for (int i = 0; i < 5; ++i) client.read_to("hello z");
}

TEST_F(TlsTest, SeesAClientLeaveWithoutAGoodbye) {
  std::atomic<bool> gone = false;
  Server server(
      options(),
      [&](Request& request) -> asio::awaitable<Response> {
        asio::steady_timer timer(co_await asio::this_coro::executor);
        for (int i = 0; i < 500 && !request.gone.stop_requested(); ++i) {
          timer.expires_after(std::chrono::milliseconds(10));
          co_await timer.async_wait(asio::use_awaitable);
        }
        gone = request.gone.stop_requested();
        co_return Response{};
      },
      log_);
  ASSERT_TRUE(server.start().ok());
  {
    Client client(server);
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(server.connections(), 1U);
  }
  for (int i = 0; i < 500 && server.connections() > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(gone);
  EXPECT_EQ(server.connections(), 0U);
}

TEST_F(TlsTest, OldVersionsAndPlainHttpAreRefused) {
  ServerOptions impatient = options();
  impatient.header_time = std::chrono::milliseconds(200);
  Server server(impatient, hello, log_);
  ASSERT_TRUE(server.start().ok());
  EXPECT_EQ(ask(server, "GET / HTTP/1.1\r\n\r\n", TLS1_1_VERSION).first, "");
  RawClient plain(server.port());
  plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(plain.read_all().find("HTTP"), std::string::npos);
  RawClient silent(server.port());
  EXPECT_TRUE(silent.closed(std::chrono::seconds(5)));
}

TEST_F(TlsTest, AKeyOfAnotherCertificateIsRefused) {
  write_certificate(folder_ / "other.pem", key());
  Server server(options(), hello, log_);
  const auto started = server.start();
  ASSERT_FALSE(started.ok());
  EXPECT_NE(started.error().message.find("key.pem"), std::string::npos);
}

}  // namespace
}  // namespace limner::gateway::http
