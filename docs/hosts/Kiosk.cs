// A client of a medimg-edge kiosk for .NET 6 or newer: HttpClient, nothing to install.
// Unlike the clients in Python, JavaScript and curl beside it, it is NOT run by medimg-edge's tests.
//
//     using var kiosk = new Kiosk(new Uri("http://127.0.0.1:8080"));
//     using var answer = await kiosk.Predict(File.ReadAllBytes("chest.png"));
//     var record = answer.RootElement.GetProperty("record");
//     Console.WriteLine($"{record.GetProperty("decision")} {record.GetProperty("probability")}");
//     byte[] png = await kiosk.Heatmap(answer.RootElement.GetProperty("id").GetString()!);
//
// An image is answered once: what was interrupted is asked again under the same Idempotency-Key.
// An authority of your own has to be among those that the machine trusts.
// What the answers mean: docs/kiosk-api.md of medimg-edge.
using System;
using System.Collections.Generic;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text.Json;
using System.Threading.Tasks;

/// <summary>A problem that the kiosk told (RFC 9457), or that it could not be reached (status 0).</summary>
public sealed class KioskException : Exception
{
    /// <summary>As in docs/kiosk-api.md, such as "input-truncated".</summary>
    public string Code { get; }
    public int Status { get; }
    /// <summary>The image could be read, and the model must not answer it.</summary>
    public bool Rejected { get; }
    /// <summary>The id under which the record has an image without an answer.</summary>
    public string? Prediction { get; }

    public KioskException(string code, string detail, int status, bool rejected, string? prediction)
        : base(detail) => (Code, Status, Rejected, Prediction) = (code, status, rejected, prediction);

    /// <summary>Whether it may help to try again.</summary>
    internal bool IsForLater =>
        Prediction is null
        && (Status is 0 or 503 or 507 || Code is "key-in-use" or "receive-deadline");
}

public sealed class Kiosk : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly HttpClient _client;

    public Kiosk(Uri url, string? token = null)
    {
        var handler = new HttpClientHandler { UseProxy = false, AllowAutoRedirect = false };
        _client = new HttpClient(handler) { BaseAddress = url, Timeout = Patience };
        if (token is not null)
            _client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
    }

    /// <summary>Answer the bytes of a PNG, JPEG, TIFF or DICOM file. key: an id of your own.</summary>
    public async Task<JsonDocument> Predict(byte[] image, int? frame = null, string? key = null)
    {
        key ??= Guid.NewGuid().ToString("N");
        var path = "/v1/predictions" + (frame is null ? "" : $"?frame={frame}");
        return JsonDocument.Parse(await Ask(() =>
        {
            var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new ByteArrayContent(image) };
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
            request.Headers.Add("Idempotency-Key", key);
            return request;
        }));
    }

    public async Task<JsonDocument> Prediction(string id) => JsonDocument.Parse(await Get(Of(id)));

    /// <summary>The newest, as {"predictions": [...], "next": ...}; before: `next` of the page before.</summary>
    public async Task<JsonDocument> Predictions(int limit = 50, long? before = null) =>
        JsonDocument.Parse(await Get(
            $"/v1/predictions?limit={limit}" + (before is null ? "" : $"&before={before}")));

    /// <summary>PNG: the heatmap over the image.</summary>
    public Task<byte[]> Heatmap(string id) => Get($"{Of(id)}/heatmap");

    public async Task<JsonDocument> Model() => JsonDocument.Parse(await Get("/v1/model"));

    /// <summary>Say that somebody has seen it, with a comment that names no patient.</summary>
    public async Task<JsonDocument> Acknowledge(string id, string comment = "")
    {
        var body = JsonSerializer.SerializeToUtf8Bytes(new { comment });
        return JsonDocument.Parse(await Ask(() =>
        {
            var request = new HttpRequestMessage(HttpMethod.Put, $"{Of(id)}/acknowledgement")
            {
                Content = new ByteArrayContent(body),
            };
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
            return request;
        }));
    }

    public void Dispose() => _client.Dispose();

    private static string Of(string id) => $"/v1/predictions/{Uri.EscapeDataString(id)}";

    private Task<byte[]> Get(string path) => Ask(() => new HttpRequestMessage(HttpMethod.Get, path));

    private async Task<byte[]> Ask(Func<HttpRequestMessage> make)
    {
        var end = DateTime.UtcNow + Patience;
        while (true)
        {
            var pause = TimeSpan.FromSeconds(1);
            KioskException problem;
            try
            {
                using var request = make();
                using var response = await _client.SendAsync(request);
                var body = await response.Content.ReadAsByteArrayAsync();
                if (response.IsSuccessStatusCode) return body;
                problem = Problem((int)response.StatusCode, body);
                pause = response.Headers.RetryAfter?.Delta ?? pause;
            }
            catch (Exception error) when (error is HttpRequestException or TaskCanceledException)
            {
                problem = new KioskException("unreachable", error.Message, 0, false, null);
            }
            if (!problem.IsForLater || DateTime.UtcNow + pause > end) throw problem;
            await Task.Delay(pause);
        }
    }

    private static KioskException Problem(int status, byte[] body)
    {
        try
        {
            using var told = JsonDocument.Parse(body);
            var root = told.RootElement;
            var prediction = root.TryGetProperty("prediction", out var id) ? id.GetString() : null;
            return new KioskException(
                root.GetProperty("code").GetString()!,
                root.GetProperty("detail").GetString()!,
                status,
                root.TryGetProperty("rejected", out var rejected) && rejected.GetBoolean(),
                prediction);
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or KeyNotFoundException)
        {
            var detail = $"The answer was {status}, and no problem of a kiosk.";
            return new KioskException("not-a-kiosk", detail, status, false, null);
        }
    }
}
