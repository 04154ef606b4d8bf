import java.net.*; import java.net.http.*;
public class Fetch { public static void main(String[] words) throws Exception {
  URI page = URI.create(words[1]);
  if (words[0].equals("url")) page.toURL().openStream().close();
  else HttpClient.newHttpClient().send(HttpRequest.newBuilder(page).build(), HttpResponse.BodyHandlers.discarding());
} }
