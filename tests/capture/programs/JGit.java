import java.io.File;
import org.eclipse.jgit.api.Git;
import org.eclipse.jgit.transport.RefSpec;
import org.eclipse.jgit.transport.UsernamePasswordCredentialsProvider;

public class JGit {
  public static void main(String[] words) throws Exception {
    var who = new UsernamePasswordCredentialsProvider("jane", "secret");
    Git.lsRemoteRepository().setRemote(words[0]).setCredentialsProvider(who).call();
    Git git = Git.cloneRepository().setURI(words[0]).setDirectory(new File("jgit")).setCredentialsProvider(who).call();
    git.commit().setMessage("j").setAuthor("Jane", "jane@example.org").setCommitter("Jane", "jane@example.org").call();
    git.push().setRefSpecs(new RefSpec("HEAD:refs/heads/jgit")).setCredentialsProvider(who).call();
  }
}
